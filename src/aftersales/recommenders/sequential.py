"""SASRec, a causal transformer over the history, trained with the full cross-entropy over all items.

Kang & McAuley 2018, arXiv 1808.09781, section III; that the loss closes most of its gap to later models is shown
by Klenitskiy & Vasilev 2023, arXiv 2309.07602. Unlike in the first paper, positions count from the first item of
the history and not from its end: then a new customer's first item stands where every training sequence has one.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender

# Batches are drawn from sequences whose lengths differ by about so much.
LENGTH_SPREAD = 10


class SequentialConfig(Config):
    """Options of ``Sequential``.

    Attributes:
        dimensions: width of item embeddings and layers.
        blocks: transformer layers.
        heads: attention heads a layer; divides ``dimensions``.
        dropout: on embeddings and on the output of each sub-layer.
        max_length: items of the history that are looked at.
        epochs: passes over the training sequences.
        batch_size: sequences a step.
        learning_rate: of AdamW, at the peak: it rises over the first tenth of the steps and falls to zero.
        weight_decay: of AdamW.
        seed: of initialisation, dropout and order.
    """

    dimensions: int = Field(default=64, ge=1)
    blocks: int = Field(default=1, ge=1)
    heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    max_length: int = Field(default=50, ge=2)
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    seed: int = 1


class Sequential(Recommender[SequentialConfig]):
    """Predicts the next item from the order of the items before it."""

    name = "sequential"
    config_type = SequentialConfig

    def _fit(self, train: Interactions) -> nn.Module:
        config = self.config
        if config.dimensions % config.heads:
            raise ConfigError(f"heads ({config.heads}) must divide dimensions ({config.dimensions})")
        windows = _windows(train.histories(), config.max_length)
        if not len(windows):
            raise DataError("no user has two events, so there is no order to learn; use popularity instead")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = SASRec(train.n_items, config)
            _train(model, windows, config)
        return model


class SASRec(nn.Module):
    """The network; ``forward`` follows the contract of ``recommenders.base``."""

    def __init__(self, n_items: int, config: SequentialConfig) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.items = nn.Embedding(n_items + 1, config.dimensions, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.dimensions)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dimensions)
        nn.init.normal_(self.items.weight, std=0.05)
        nn.init.normal_(self.positions.weight, std=0.05)

    def forward(self, history: Tensor, *_: Tensor) -> Tensor:
        """Return scores (batch, n_items) for what follows the last item."""
        return self.logits(self.states(history[:, -self.max_length :])[:, -1])

    def states(self, history: Tensor) -> Tensor:
        """Return (batch, length, dimensions) for at most ``max_length`` items; state t has seen items 1..t."""
        real = history > 0
        position = (real.long().cumsum(dim=1) - 1).clamp(min=0)
        hidden = self.dropout(self.items(history) + self.positions(position))
        order = torch.arange(history.shape[1], device=history.device)
        earlier = order[:, None] > order[None, :]
        itself = order[:, None] == order[None, :]
        # A padded position sees itself, lest its softmax run over nothing.
        visible = (earlier & real[:, None, :]) | itself
        for block in self.blocks:
            hidden = block(hidden, visible[:, None])
        normed: Tensor = self.norm(hidden)
        return normed

    def logits(self, states: Tensor) -> Tensor:
        """Return the products of ``states`` (..., dimensions) and the item embeddings, without the padding."""
        return states @ self.items.weight[1:].t()


class _Block(nn.Module):
    """Attention and a two-layer network, each on the normalised input and added to it."""

    def __init__(self, config: SequentialConfig) -> None:
        super().__init__()
        width = config.dimensions
        self.heads = config.heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self._attend(self.before_attention(hidden), visible))
        changed: Tensor = hidden + self.dropout(self.network(self.before_network(hidden)))
        return changed

    def _attend(self, hidden: Tensor, visible: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        split = self.projections(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
        mixed: Tensor = self.mix((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return mixed


def _windows(histories: Histories, max_length: int) -> NDArray[np.int64]:
    """Cut every history from its end into pieces of ``max_length`` steps, shape (pieces, max_length + 1).

    Each piece holds the items to learn from and, shifted by one, the items to predict.
    """
    pieces = []
    for start, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        for stop in range(int(end), int(start) + 1, -max_length):
            pieces.append(histories.items[max(int(start), stop - max_length - 1) : stop].tolist())
    return Histories.of(pieces).padded(max_length + 1)


def _train(model: SASRec, windows: NDArray[np.int64], config: SequentialConfig) -> None:
    table = torch.from_numpy(windows)
    lengths = (table > 0).sum(dim=1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    steps = config.epochs * -(-len(table) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    for _ in (bar := tqdm(range(config.epochs), desc="sequential", unit="epoch")):
        total = 0.0
        for batch in _batches(lengths, config.batch_size):
            loss = _loss(model, table[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        bar.set_postfix(loss=f"{total / len(table):.3f}")


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: up in a straight line for a tenth of the steps, down by a cosine."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _batches(lengths: Tensor, batch_size: int) -> list[Tensor]:
    """Return the rows of every batch of a pass: random, but of like length, so that little is padding."""
    near = torch.argsort(lengths + torch.rand(len(lengths)) * LENGTH_SPREAD)
    rows = [near[start : start + batch_size] for start in range(0, len(near), batch_size)]
    return [rows[number] for number in torch.randperm(len(rows)).tolist()]


def _loss(model: SASRec, windows: Tensor) -> Tensor:
    """Return the mean cross-entropy over all items at every position that has a next item."""
    windows = windows[:, int((windows > 0).int().argmax(dim=1).min()) :]  # no column of nothing but padding
    history, following = windows[:, :-1], windows[:, 1:]
    real = history > 0
    return functional.cross_entropy(model.logits(model.states(history)[real]), following[real] - 1)
