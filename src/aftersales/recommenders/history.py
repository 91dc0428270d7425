"""Histories as the matrix that linear models learn from, and as what a graph looks at."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from aftersales.corpora.histories import Histories


def user_item_counts(histories: Histories, n_items: int) -> csr_array:
    """Return how often each user had an event with each item: float64, shape (users, n_items), sparse."""
    shape = (len(histories), n_items)
    counts = csr_array((np.ones(len(histories.items)), (histories.rows, histories.items - 1)), shape=shape)
    counts.sum_duplicates()
    return counts


def user_items(histories: Histories, n_items: int) -> csr_array:
    """Return 1 where a user had at least one event with an item: float64, shape (users, n_items), sparse."""
    found = user_item_counts(histories, n_items)
    found.data[:] = 1.0
    return found


def latest(history: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct items of each history and how many events ago each came last, 0 for the last event.

    Args:
        history: item indices, right-aligned after zeros, int64 of shape (batch, length).

    Returns:
        Two tensors of that shape: item indices, with 0 in the place of repetitions and padding, and ages.
    """
    length = history.shape[1]
    key, _ = (history * length + torch.arange(length)).sort(dim=1)
    item = key // length
    comes_again = functional.pad(item[:, 1:] == item[:, :-1], (0, 1))
    return item.masked_fill(comes_again, 0), length - 1 - key % length


def recency(history: Tensor, half_life: float | None) -> tuple[Tensor, Tensor]:
    """Return the distinct items of each history as ``latest`` does, and their weights.

    A weight halves with every ``half_life`` events since the item came last; all weights are 1 when it is None.
    """
    item, age = latest(history)
    return item, torch.ones_like(age, dtype=torch.float32) if half_life is None else 0.5 ** (age / half_life)
