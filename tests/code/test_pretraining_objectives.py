"""What the encoder learns from: masked words, replaced tokens, bags of words and labels."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.conftest import pretrain_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from aftersales.core.errors import ModelError
from aftersales.core.paths import load_script
from aftersales.encoders.labelled import LabelledBatch
from aftersales.encoders.objectives import OBJECTIVES, MaskedLanguageModel, bag_of_words_loss, batch_of, learning_rate


def test_heads_of_the_first_layer_start_on_their_neighbours():
    config = BertConfig(vocab_size=100, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = MaskedLanguageModel(config).model.eval()
    attention = model.bert(torch.randint(0, 100, (64, 32)), output_attentions=True).attentions[0].mean(dim=0)
    for head, offset in enumerate((-1, 1, -2, 2)):
        assert attention[head, 16].argmax() == 16 + offset


@pytest.fixture
def small():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(vocab_size=50, attn_implementation="eager", **shape)  # as the recipe makes it


def batch(hide=3):
    rows = np.random.default_rng(0).integers(5, 50, (4, 8))
    rows[:, 0] = 2
    hidden = np.zeros(rows.shape, dtype=bool)
    hidden[:, hide] = True
    return batch_of(rows, np.where(hidden, 4, rows), hidden, [0, 1, 2, 3, 4], seed=1)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_bag_of_words_loss_trains_cls_and_nothing_asks_it_otherwise(small, objective):
    model, one = OBJECTIVES[objective](small), batch()

    def asked_of_cls(weight):
        loss, states = model.token_loss(one)
        states.retain_grad()
        (loss + weight * bag_of_words_loss(model.model, states, one)).backward()
        return states.grad[:, 0].abs().sum()

    assert asked_of_cls(0.0) == 0 and asked_of_cls(0.5) > 0
    wanted = torch.zeros(4, 50).scatter_(1, one.rows[:, 1:], 1.0)

    def bag():
        logits = model.model.cls(model.token_loss(one)[1][:, 0])
        return -(logits.log_softmax(1) * wanted / wanted.sum(1, keepdim=True)).sum(1).mean()

    first = bag().item()
    assert (model(one, 0.5) - model(one)).item() == pytest.approx(0.5 * first, rel=1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(one, 0.5).backward()
        optimizer.step()
    assert bag().item() < 0.9 * first


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_flops_of_a_step_are_those_of_its_matrix_products(small, objective):
    model, one = OBJECTIVES[objective](small, [3]), batch()
    lesson = LabelledBatch(0, one.rows, torch.ones_like(one.rows), torch.tensor([0, 1, 2, 0]), multi_label=False)
    with FlopCounterMode(display=False) as counter:
        model(one, 0.5).backward()
    assert model.flops(4, 8, one.hidden.float().mean().item(), 4) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    with FlopCounterMode(display=False) as counter:
        model.label_loss(lesson).backward()
    assert model.label_flops(lesson) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(corpus, small):
    recipe, model = load_script("training/pretrain.py"), MaskedLanguageModel(small)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    with torch.no_grad():
        model.model.cls.predictions.bias[7] = math.nan
    with pytest.raises(ModelError, match=r"step 3: the loss is nan .*last checkpoint is kept"):
        recipe.learn(pretrain_config(corpus), Accelerator(cpu=True), model, optimizer, 3, batch(), None)
    assert sum(weights.isnan().sum() for weights in model.parameters()) == 1


def test_detection_learns_to_tell_replaced_tokens(small):
    model, one = OBJECTIVES["electra"](small), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model(one).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(one)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first
    assert model.generator.bert.embeddings is model.model.bert.embeddings
    assert model.detector[0].weight.grad.abs().sum() > 0 and model.encoder is model.model.bert


def test_the_rate_rises_holds_and_falls():
    rates = [learning_rate(step, 100, 2.0, 10, 50) for step in range(101)]
    assert rates[0] == 0.2 and rates[9:51] == [2.0] * 42 and rates[75] == 1.0 and rates[100] == 0.0
    assert max(abs(a - b) for a, b in pairwise(learning_rate(step, 20, 2.0, 10, 15) for step in range(20))) < 0.3


def test_several_labels_are_learned_each(small):
    model = MaskedLanguageModel(small, [3]).eval()
    rows = torch.arange(8).reshape(2, 4) + 5
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    lesson = LabelledBatch(0, rows, torch.ones_like(rows), target, multi_label=True)
    with torch.no_grad():
        model.heads[0].weight.zero_()
        model.heads[0].bias.copy_(torch.tensor([30.0, 0.0, -30.0]))
    # First row: one sure hit, one coin, one sure miss avoided; second: one sure mistake, one coin.
    assert model.label_loss(lesson).item() == pytest.approx((math.log(2) + 30 + math.log(2)) / 2, rel=1e-3)


def test_the_labels_loss_teaches_the_encoder(small):
    model = MaskedLanguageModel(small, [3]).eval()
    rows = torch.arange(12).reshape(3, 4) + 5
    lesson = LabelledBatch(0, rows, torch.ones_like(rows), torch.arange(3), multi_label=False)
    first = model.label_loss(lesson)
    first.backward()
    assert model.encoder.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0
    assert model(batch(), 0.0, lesson, 2.0).item() == pytest.approx(
        (model(batch()) + 2.0 * model.label_loss(lesson)).item(), rel=1e-3
    )
