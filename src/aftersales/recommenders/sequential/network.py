"""The network: a causal transformer over embedded events, and its scores of all items.

Kang & McAuley 2018 (ICDM), arXiv 1808.09781, section III, with the norm before each sub-layer. Unlike in the paper,
positions count from the first event of the history and not from its end: then a new customer's first item stands where
every training sequence has one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from aftersales.recommenders.factorised import Factorised
from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.runtime.events import EVENT_KINDS, UNKNOWN_AGE

INITIAL_SPREAD = 0.05
# Lower bounds of the buckets of time in days: a minute, and half a power of two more each, up to three years.
BUCKETS = [2 ** (half / 2) / 1440 for half in range(42)]
# The number after that of the last bucket, and the share of histories that are learned from as if without times.
UNKNOWN_WAIT = len(BUCKETS) + 1
UNTIMED = 0.1


class Events(NamedTuple):
    """A batch of sequences.

    Attributes:
        items: item indices, 0 for padding, int64 of shape (batch, length).
        kinds: numbers of the kinds of event, 0 for padding, int64 of that shape.
        waits: bucket of the time from each event to the next or to the request, ``UNKNOWN_WAIT`` without times, int64
            of that shape.
    """

    items: Tensor
    kinds: Tensor
    waits: Tensor


def bucket(days: Tensor) -> Tensor:
    """Return the number of the bucket of each time, 0 below the first bound; comparisons are exact in any runtime."""
    return (days[..., None] >= torch.tensor(BUCKETS, dtype=torch.float32, device=days.device)).sum(dim=-1)


class Transformer(nn.Module):
    """From the vectors of items, and what else is known of events, to what comes next."""

    def __init__(self, config: SequentialConfig) -> None:
        super().__init__()
        self.item_dropout, self.temperature = config.item_dropout, config.temperature
        self.positions = nn.Embedding(config.max_length, config.dimensions)
        self.kinds = nn.Embedding(len(EVENT_KINDS) + 1, config.dimensions, padding_idx=0) if config.kinds else None
        self.waits = nn.Embedding(UNKNOWN_WAIT + 1, config.dimensions) if config.times else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dimensions)
        for table in (self.positions, self.kinds, self.waits):
            if table is not None:
                nn.init.normal_(table.weight, std=INITIAL_SPREAD)

    def states(self, matrix: Tensor, events: Events, left_aligned: bool = False) -> Tensor:
        """Return what the model expects after each event.

        Args:
            matrix: vectors of items, shape (n_items + 1, dimensions), row 0 zero.
            events: at most ``max_length`` of each sequence.
            left_aligned: all padding comes after the events, as in training; then no event can see any and the faster
                causal attention does.

        Returns:
            Shape (batch, length, dimensions); state t has seen events up to t.
        """
        real = events.items > 0
        position = (real.long().cumsum(dim=1) - 1).clamp(min=0)
        vectors = functional.embedding(events.items, matrix)
        if self.training and self.item_dropout:
            vectors = vectors * (torch.rand_like(vectors[..., :1]) >= self.item_dropout)
        hidden = vectors + self.positions(position)
        if self.kinds is not None:
            hidden = hidden + self.kinds(events.kinds)
        if self.waits is not None:
            hidden = hidden + self.waits(self._seen(events.waits))
        hidden = self.dropout(hidden)
        visible = None if left_aligned else _visible(real)
        for block in self.blocks:
            hidden = block(hidden, visible)
        normed: Tensor = self.norm(hidden)
        return normed

    def _seen(self, waits: Tensor) -> Tensor:
        """Return the waits; while the network learns, those of some histories are unknown, as in some requests."""
        if not self.training:
            return waits
        return waits.masked_fill(torch.rand(len(waits), 1, device=waits.device) < UNTIMED, UNKNOWN_WAIT)

    def comparable(self, states: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return states and item vectors whose products are the scores."""
        return self.sought(states), self.offered(matrix)

    def sought(self, states: Tensor) -> Tensor:
        """Return what ``comparable`` makes of states."""
        return states if self.temperature is None else functional.normalize(states, dim=-1) / self.temperature

    def offered(self, matrix: Tensor) -> Tensor:
        """Return what ``comparable`` makes of item vectors."""
        return matrix if self.temperature is None else functional.normalize(matrix, dim=-1)


class Ranker(Factorised):
    """A trained network as the contract of ``recommenders.base`` wants it; item vectors are constant."""

    matrix: Tensor

    def __init__(self, transformer: Transformer, matrix: Tensor, max_length: int) -> None:
        super().__init__()
        self.transformer, self.max_length = transformer, max_length
        self.register_buffer("matrix", matrix)

    def state(self, history: Tensor, kinds: Tensor, ages: Tensor) -> Tensor:
        """Return what is expected after the last event, shape (batch, dimensions)."""
        history, kinds, ages = (table[:, -self.max_length :] for table in (history, kinds, ages))
        waits = (ages - functional.pad(ages[:, 1:], (0, 1))).clamp(min=0)
        buckets = bucket(waits).masked_fill(ages >= UNKNOWN_AGE, UNKNOWN_WAIT)
        last = self.transformer.states(self.matrix, Events(history, kinds, buckets))[:, -1]
        return self.transformer.sought(last)

    def vectors(self) -> Tensor:
        """Return the vectors of the items, shape (n_items, dimensions)."""
        return self.transformer.offered(self.matrix[1:])


def _visible(real: Tensor) -> Tensor:
    """Return which event sees which, shape (batch, 1, length, length)."""
    order = torch.arange(real.shape[1], device=real.device)
    earlier = order[:, None] > order[None, :]
    itself = order[:, None] == order[None, :]
    # A padded position sees itself, lest its softmax run over nothing.
    return ((earlier & real[:, None, :]) | itself)[:, None]


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

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        hidden = hidden + self.dropout(self._attend(self.before_attention(hidden), visible))
        changed: Tensor = hidden + self.dropout(self.network(self.before_network(hidden)))
        return changed

    def _attend(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        batch, length, width = hidden.shape
        split = self.projections(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, is_causal=visible is None
        )
        mixed: Tensor = self.mix(attended.transpose(1, 2).reshape(batch, length, width))
        return mixed
