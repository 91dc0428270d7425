"""What pre-training asks of an encoder: masked-language modelling or replaced-token detection.

Both are modules whose ``encoder`` is an ordinary BERT, and whose call takes a batch and returns the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, BertModel

from aftersales.encoders.labelled import LabelledBatch
from aftersales.encoders.throughput import flops_a_token, linear_flops

REPLACED_WEIGHT = 50.0  # Clark et al. 2020, section 3.2


@dataclass(frozen=True)
class Batch:
    """Arrays of one step, each of shape (rows, length).

    Attributes:
        rows: the original token ids, each row beginning with [CLS].
        inputs: the ids after hiding.
        hidden: boolean, the positions that were hidden.
        ordinary: boolean, the positions that hold no special token.
        seed: for what the step draws itself.
    """

    rows: torch.Tensor
    inputs: torch.Tensor
    hidden: torch.Tensor
    ordinary: torch.Tensor
    seed: int

    def to(self, device: torch.device) -> Self:
        """Return the batch on another device."""
        return replace(
            self, **{name: getattr(self, name).to(device) for name in ("rows", "inputs", "hidden", "ordinary")}
        )


class Objective(nn.Module):
    """What both have in common: the encoder with its vocabulary head, and heads of labelled sets.

    Attributes:
        all_masked: every hidden position shows [MASK], instead of some another token or the right one.
    """

    all_masked: bool

    def __init__(self, config: BertConfig, head_sizes: Sequence[int] = ()) -> None:
        """Make a fresh encoder; ``head_sizes`` says how many labels each labelled set has."""
        super().__init__()
        self.model = BertForMaskedLM(config)
        start_local(self.model)
        self.heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in head_sizes)

    @property
    def encoder(self) -> BertModel:
        """The encoder that is being trained."""
        encoder: BertModel = self.model.bert
        return encoder

    def token_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of the hidden tokens in nats, and the encoder's states of shape (rows, length, hidden)."""
        raise NotImplementedError

    def flops(self, rows: int, length: int, hide: float, bags: int) -> float:
        """Return the FLOPs of a step on text, forwards and backwards, without embeddings.

        Args:
            rows: of the batch.
            length: tokens of a row.
            hide: share of the tokens that is hidden.
            bags: rows whose [CLS] answers for the bag of words.
        """
        raise NotImplementedError

    def label_flops(self, labelled: LabelledBatch) -> float:
        """Return the FLOPs of a step on labelled texts, forwards and backwards, padding left out."""
        rows, width = labelled.inputs.shape
        head = linear_flops(self.heads[labelled.which])
        return labelled.tokens * flops_a_token(self.encoder, width) + rows * head

    def forward(
        self, batch: Batch, bag_of_words: float = 0.0, labelled: LabelledBatch | None = None, label_weight: float = 0.0
    ) -> torch.Tensor:
        """Return the token loss plus, with their weights, that of [CLS] and that of the labels."""
        loss, states = self.token_loss(batch)
        if bag_of_words:
            loss = loss + bag_of_words * bag_of_words_loss(self.model, states, batch)
        return loss if labelled is None else loss + label_weight * self.label_loss(labelled)

    def label_loss(self, labelled: LabelledBatch) -> torch.Tensor:
        """Return the cross-entropy of a text's labels, read from [CLS] through a tanh as a classifier reads it.

        Where a text may have several, those of all labels are added up: their mean would shrink with every rare label.
        """
        states = self.model.bert(input_ids=labelled.inputs, attention_mask=labelled.mask).last_hidden_state
        scores = self.heads[labelled.which](torch.tanh(states[:, 0])).float()
        if labelled.multi_label:
            wrong = functional.binary_cross_entropy_with_logits(scores, labelled.target, reduction="none")
            return wrong.sum(dim=1).mean()
        return functional.cross_entropy(scores, labelled.target)


class MaskedLanguageModel(Objective):
    """Predict the hidden tokens (Devlin et al. 2019, section 3.1)."""

    all_masked = False

    def token_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of the hidden tokens in nats, and the states."""
        states = self.model.bert(input_ids=batch.inputs).last_hidden_state
        return hidden_loss(self.model, states, batch), states

    def flops(self, rows: int, length: int, hide: float, bags: int) -> float:
        """Return the FLOPs of the encoder, and of the vocabulary head where it runs."""
        tokens = rows * length
        return tokens * flops_a_token(self.encoder, length) + (hide * tokens + bags) * linear_flops(self.model.cls)


class ReplacedTokenDetection(Objective):
    """Tell which tokens a small generator has replaced (ELECTRA, Clark et al. 2020).

    Every token gives a lesson instead of the hidden 15 %. The generator is one layer of the encoder's width that shares
    its embeddings: with its heads started on the neighbours it is a good n-gram model from the first steps on.
    """

    all_masked = True

    def __init__(self, config: BertConfig, head_sizes: Sequence[int] = ()) -> None:
        super().__init__(config, head_sizes)
        self.generator = BertForMaskedLM(BertConfig.from_dict({**config.to_dict(), "num_hidden_layers": 1}))
        self.generator.config._attn_implementation = config._attn_implementation
        start_local(self.generator)
        self.generator.bert.embeddings = self.model.bert.embeddings
        self.generator.cls.predictions.decoder.weight = self.model.bert.embeddings.word_embeddings.weight
        self.detector = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, 1)
        )

    def token_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the generator's loss plus the weighted loss of detection, and the states of the detector's encoder."""
        states = self.generator.bert(input_ids=batch.inputs).last_hidden_state
        logits = self.generator.cls(states[batch.hidden]).float()
        loss = functional.cross_entropy(logits, batch.rows[batch.hidden])
        shown = batch.rows.clone()
        shown[batch.hidden] = sampled(logits.detach(), batch.seed)
        states = self.model.bert(input_ids=shown).last_hidden_state
        replaced = (shown != batch.rows).float()
        found = self.detector(states).squeeze(-1).float()
        wrong = functional.binary_cross_entropy_with_logits(found[batch.ordinary], replaced[batch.ordinary])
        return loss + REPLACED_WEIGHT * wrong, states

    def flops(self, rows: int, length: int, hide: float, bags: int) -> float:
        """Return the FLOPs of generator, encoder and detector, and of the two vocabulary heads where they run."""
        tokens = rows * length
        layers = flops_a_token(self.generator.bert, length) + flops_a_token(self.encoder, length)
        heads = hide * tokens * linear_flops(self.generator.cls) + bags * linear_flops(self.model.cls)
        return tokens * (layers + linear_flops(self.detector)) + heads


OBJECTIVES: dict[str, type[Objective]] = {"mlm": MaskedLanguageModel, "electra": ReplacedTokenDetection}


def hidden_loss(model: BertForMaskedLM, states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy at the hidden positions.

    The vocabulary projection runs at these positions only: at 8,192 tokens and 256 units it would otherwise
    cost two thirds as much as the four layers.
    """
    return functional.cross_entropy(model.cls(states[batch.hidden]).float(), batch.rows[batch.hidden])


def bag_of_words_loss(model: BertForMaskedLM, states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Ask the state of [CLS] which tokens stand in the row, each counted once.

    Ma et al. 2024, "Drop your Decoder", section 3.2. Neither objective trains [CLS] otherwise, which is what a
    classifier reads.
    """
    size = model.config.vocab_size
    present = torch.zeros(len(batch.rows), size, device=states.device).scatter_(1, batch.rows[:, 1:], 1.0)
    wanted = present / present.sum(dim=1, keepdim=True)
    return functional.cross_entropy(model.cls(states[:, 0]).float(), wanted)


def sampled(logits: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw one token id from each row of ``logits`` of shape (positions, vocabulary), the same for the same seed."""
    generator = torch.Generator(device=logits.device).manual_seed(seed)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)


def batch_of(rows: np.ndarray, inputs: np.ndarray, hidden: np.ndarray, special: Sequence[int], seed: int) -> Batch:
    """Return the arrays of a step as tensors."""
    ordinary = torch.from_numpy(~np.isin(rows, special))
    return Batch(torch.from_numpy(rows), torch.from_numpy(inputs), torch.from_numpy(hidden), ordinary, seed)


def start_local(model: BertForMaskedLM, offsets: Sequence[int] = (-1, 1, -2, 2), sharpness: float = 0.8) -> None:
    """Start the heads of the first layer as readers of the tokens next to them.

    A fresh model spends thousands of steps predicting from character frequencies before a head has found out what a
    neighbour is. Here the first dimensions carry the position alone, as sinusoids (Vaswani et al. 2017, section 3.5),
    and head h asks in them for the position ``offsets[h]`` away: its keys are the positions rotated by that offset.
    Everything stays trainable, and the model stays an ordinary BERT. The idea of starting attention from the pattern
    it will learn is that of Trockman and Kolter 2023 (mimetic initialisation).
    """
    embeddings, attention = model.bert.embeddings, model.bert.encoder.layer[0].attention.self
    width = attention.attention_head_size
    table = embeddings.position_embeddings.weight
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / model.config.hidden_size)
    angles = torch.arange(len(table))[:, None] * rates
    with torch.no_grad():
        embeddings.word_embeddings.weight[:, :width] = 0.0
        table[:, width:] *= 0.1
        table[:, 0:width:2] = 2 * model.config.initializer_range * torch.sin(angles)
        table[:, 1:width:2] = 2 * model.config.initializer_range * torch.cos(angles)
        for head, offset in zip(range(attention.num_attention_heads), offsets, strict=False):
            rotation = torch.zeros(width, width)
            even, odd = torch.arange(0, width, 2), torch.arange(1, width, 2)
            rotation[even, even] = rotation[odd, odd] = torch.cos(rates * offset)
            rotation[odd, even] = torch.sin(rates * offset)
            rotation[even, odd] = -torch.sin(rates * offset)
            rows = slice(head * width, (head + 1) * width)
            attention.query.weight[rows, :width] += sharpness * torch.eye(width)
            attention.key.weight[rows, :width] += sharpness * rotation


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Warm up linearly, hold, and fall linearly to zero over the last ``decay`` steps (Hu et al. 2024, WSD)."""
    return peak * max(0.0, min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, decay)))
