"""Fine-tuning itself: what a recipe's settings do to the trained model."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, Trainer

from aftersales.classifiers.fit import FitConfig, fit

TEXTS = ["退货退回去", "发票抬头税号", "快递物流包裹", "退货 3 号", "发票 4 号", "快递 5 号"]
GOLD = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]


def fitted(tiny_encoder, work, **settings):
    config = FitConfig(encoder=str(tiny_encoder), epochs=2, batch_size=2, max_tokens=16, dropout=0.0, **settings)
    return fit(config, (TEXTS, GOLD), (TEXTS, GOLD), ["a", "b", "c"], False, work)


def test_scores_come_in_the_order_of_the_texts(tiny_encoder, tmp_path):
    model = fitted(tiny_encoder, tmp_path)
    texts = ["退", "一条很长很长的消息" * 5, "快递"]
    alone = np.concatenate([model.logits([text]) for text in texts])
    assert model.logits(texts) == pytest.approx(alone, abs=1e-4)


def test_adversarial_steps_raise_the_loss_and_are_taken_back(tiny_encoder, tmp_path, monkeypatch):
    losses = []
    step = Trainer.training_step

    def watched(*arguments):
        losses.append(float(step(*arguments)))
        return torch.tensor(losses[-1])

    monkeypatch.setattr(Trainer, "training_step", watched)
    still = fitted(tiny_encoder, tmp_path, adversarial=1.0, learning_rate=1e-30, weight_decay=0.0)
    assert len(losses) == 2 * 2 * 3, "every batch of both epochs twice"
    assert all(moved > plain for plain, moved in zip(losses[::2], losses[1::2], strict=True))
    before = AutoModel.from_pretrained(tiny_encoder, dtype="float32").get_input_embeddings().weight
    assert torch.equal(still.model.get_input_embeddings().weight, before)
