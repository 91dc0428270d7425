"""Sequences of events of some users, and what is to be predicted after them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aftersales.runtime.events import KIND_NUMBERS, UNKNOWN_AGE, Inputs, ages_in_days

BUY = KIND_NUMBERS["buy"]


@dataclass(frozen=True)
class Histories:
    """Events of some users, oldest first, as flat arrays, and when something is to be recommended to each.

    Attributes:
        users: user ids, length n.
        items: item indices 1..n_items of all users one after the other, int64 of shape (events,).
        offsets: user u's events are those from ``offsets[u]`` to ``offsets[u + 1]``, int64 of shape (n + 1,).
        kinds: 1-based index into ``EVENT_KINDS``, int64 of shape (events,).
        times: seconds since 1970-01-01 UTC, or the place in the user's sequence, int64 of shape (events,).
        now: when something is to be recommended, in the same unit, int64 of shape (n,).
        timed: whether ``times`` and ``now`` are seconds.
    """

    users: Sequence[str]
    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    kinds: NDArray[np.int64]
    times: NDArray[np.int64]
    now: NDArray[np.int64]
    timed: bool = True

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], users: Sequence[str] | None = None) -> Self:
        """Build from one list of item indices a user: purchases in an order, without times."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        flat = np.fromiter((item for row in rows for item in row), dtype=np.int64, count=int(offsets[-1]))
        places = np.arange(len(flat)) - np.repeat(offsets[:-1], lengths)
        names = users if users is not None else [str(row) for row in range(len(rows))]
        return cls(names, flat, offsets, np.full(len(flat), BUY), places, lengths, timed=False)

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of events of each user, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The user's row number beside each event, shape (events,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def select(self, start: int, stop: int) -> "Histories":
        """Return the histories of the users at ``start`` to ``stop`` (exclusive)."""
        return self.take(np.arange(start, min(stop, len(self))))

    def take(self, rows: NDArray[np.int64]) -> "Histories":
        """Return the histories of the users with these row numbers, in this order."""
        lengths = self.lengths[rows]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Histories(
            users=[self.users[row] for row in rows],
            items=self.items[places],
            offsets=offsets,
            kinds=self.kinds[places],
            times=self.times[places],
            now=self.now[rows],
            timed=self.timed,
        )

    def padded(self, length: int | None = None) -> NDArray[np.int64]:
        """Return the last ``length`` items of each user, right-aligned, 0 before them: shape (n, length).

        Without ``length`` the longest history decides, and one column is the least.
        """
        return self._right_aligned(self.items, self._width() if length is None else length)

    def inputs(self, longest: int | None = None) -> Inputs:
        """Return what a graph takes, of at most the last ``longest`` events of each user."""
        width = self._width() if longest is None else min(longest, self._width())
        ages = ages_in_days(self.now[self.rows] - self.times)
        if not self.timed:
            ages = np.full_like(ages, UNKNOWN_AGE)
        return Inputs(*(self._right_aligned(values, width) for values in (self.items, self.kinds, ages)))

    def _width(self) -> int:
        return max(1, int(self.lengths.max(initial=0)))

    def _right_aligned(self, values: NDArray[Any], width: int) -> NDArray[Any]:
        rows = self.rows
        columns = width - (self.offsets[rows + 1] - np.arange(len(values)))
        table = np.zeros((len(self), width), dtype=values.dtype)
        recent = columns >= 0
        table[rows[recent], columns[recent]] = values[recent]
        return table


# Histories of some users -> scores, float32 of shape (users, n_items).
Scorer = Callable[[Histories], NDArray[np.float32]]


@dataclass(frozen=True)
class Holdout:
    """What is to be predicted: for each user the history before the targets, and the targets' item indices.

    Attributes:
        histories: n users; their ``now`` is the time of the (first) target. A request comes a little earlier, when the
            customer comes back, and within a basket nothing tells which item is the last: a model that sees times
            sees more here than when it serves. ``without_times`` gives the other bound.
        targets: item indices 1..n_items, int64 of shape (targets,).
        offsets: user u's targets are ``targets[offsets[u]:offsets[u + 1]]``, at least one, int64 of shape (n + 1,);
            None where every user has one.
    """

    histories: Histories
    targets: NDArray[np.int64]
    offsets: NDArray[np.int64] | None = None

    def thinned(self, users: int) -> "Holdout":
        """Return at most so many users, evenly spaced, of a holdout with one target a user."""
        rows = np.arange(0, len(self.targets), -(-len(self.targets) // users))
        return Holdout(self.histories.take(rows), self.targets[rows])

    def without_times(self) -> "Holdout":
        """Return the same with times that are not known, as in a request that gives none."""
        return replace(self, histories=replace(self.histories, timed=False))

    def firsts(self) -> "Holdout":
        """Return the first target of each user alone."""
        return self if self.offsets is None else Holdout(self.histories, self.targets[self.offsets[:-1]])

    @property
    def rows(self) -> NDArray[np.int64]:
        """The user's row number beside each target, shape (targets,)."""
        per_user = 1 if self.offsets is None else np.diff(self.offsets)
        return np.repeat(np.arange(len(self.histories), dtype=np.int64), per_user)
