"""Training sequences: stretches of histories, cut into windows and dealt to batches of like length."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from aftersales.corpora.histories import Histories
from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.recommenders.sequential.network import BUCKETS, Events
from aftersales.runtime.events import KIND_NUMBERS, ages_in_days

# Batches are drawn from windows whose lengths differ by about so much.
LENGTH_SPREAD = 10


@dataclass(frozen=True)
class Windows:
    """Stretches of a flat table of events, each with an event to predict after every event that is read.

    Attributes:
        events: of all users one after the other, each part of shape (events,).
        learned: at which events the next one is to be predicted, boolean of shape (events,).
        starts: first event of each window, int64 of shape (windows,).
        lengths: events of each window, at least two, int64 of that shape.
    """

    events: Events
    learned: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, histories: Histories, config: SequentialConfig) -> Self:
        """Cut every history from its end into windows of ``max_length`` steps, and drop those with nothing to learn."""
        wanted = {KIND_NUMBERS[kind] for kind in config.targets} if config.targets else set(KIND_NUMBERS.values())
        followed = np.append(histories.rows[1:] == histories.rows[:-1], False)[: len(histories.items)]
        following = np.roll(np.arange(len(histories.items)), -1)
        learned = followed & np.isin(histories.kinds[following], list(wanted))
        seconds = np.where(followed, histories.times[following] - histories.times, 0)
        waits = np.searchsorted(np.array(BUCKETS, dtype=np.float32), ages_in_days(seconds), side="right")
        if not histories.timed:
            waits = np.zeros_like(waits)
        starts, lengths = _cut(histories, config.max_length)
        upto = np.append(0, np.cumsum(learned))
        some = upto[starts + lengths - 1] > upto[starts]
        return cls(
            Events(torch.from_numpy(histories.items), torch.from_numpy(histories.kinds), torch.from_numpy(waits)),
            torch.from_numpy(learned),
            torch.from_numpy(starts[some]),
            torch.from_numpy(lengths[some]),
        )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.starts)

    def order(self, batch_size: int) -> Iterator[Tensor]:
        """Yield the windows of every batch of a pass: random, but of like length, so that little is padding."""
        near = torch.argsort(self.lengths + torch.rand(len(self)) * LENGTH_SPREAD)
        rows = [near[start : start + batch_size] for start in range(0, len(near), batch_size)]
        yield from (rows[number] for number in torch.randperm(len(rows)).tolist())

    def batch(self, rows: Tensor) -> tuple[Events, Tensor, Tensor]:
        """Return what is read, where something is learned, and what came next.

        Returns:
            Events, left-aligned, each part of shape (batch, length); a mask of that shape; item indices of shape
            (places,), in the order of the mask's true places.
        """
        steps = self.lengths[rows] - 1
        order = torch.arange(int(steps.max()))
        real = order < steps[:, None]
        places = torch.where(real, self.starts[rows, None] + order, 0)
        mask = real & self.learned[places]
        read = Events(*(torch.where(real, table[places], 0) for table in self.events))
        return read, mask, self.events.items[places[mask] + 1]


def _cut(histories: Histories, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where windows start and how many events they have; neighbours share one, which both need."""
    starts, lengths = [], []
    for start, end in zip(histories.offsets[:-1].tolist(), histories.offsets[1:].tolist(), strict=True):
        for stop in range(end, start + 1, -max_length):
            starts.append(max(start, stop - max_length - 1))
            lengths.append(stop - starts[-1])
    return np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64)
