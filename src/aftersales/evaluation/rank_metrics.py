"""Metrics of a ranking from the ranks of the targets alone.

Every target is ranked, so what stands among the first k follows from its rank and no list is needed. Definitions:
Herlocker et al. 2004, "Evaluating Collaborative Filtering Recommender Systems" (ACM TOIS 22); nDCG: Järvelin &
Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques" (ACM TOIS 20).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import DataError

Floats = NDArray[np.float64]
# Ranks of all targets, where each user's begin, how many a user has, and k -> value of each user.
Metric = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int], Floats]


def gains(metric: str, ranks: NDArray[np.int64], offsets: NDArray[np.int64] | None = None) -> Floats:
    """Return the value of a metric for every user; their mean is the figure.

    Args:
        metric: ``hr@k`` (is any target among the first k), ``recall@k`` (which share of the targets is),
            ``precision@k`` (which share of the k are targets), ``f1@k``, ``ndcg@k`` or ``mrr@k`` (one over the rank of
            the first target). With one target, recall is HR, precision is HR / k and the ideal DCG is 1.
        ranks: rank from 1 of every target, shape (targets,).
        offsets: user u's targets are ``ranks[offsets[u]:offsets[u + 1]]``, at least one; None where each has one.

    Returns:
        Values, float64 of shape (users,).

    Raises:
        DataError: the metric is none of these.
    """
    name, _, cutoff = metric.partition("@")
    if name not in METRICS or not cutoff.isdecimal() or int(cutoff) < 1:
        raise DataError(f"unknown ranking metric {metric!r}; it is {', '.join(f'{known}@k' for known in METRICS)}")
    if offsets is None:
        offsets = np.arange(len(ranks) + 1)
    if not len(ranks):
        return np.zeros(0)
    return METRICS[name](ranks, offsets[:-1], np.diff(offsets), int(cutoff))


def _hits(ranks: NDArray[np.int64], starts: NDArray[np.int64], k: int) -> Floats:
    found: Floats = np.add.reduceat((ranks <= k).astype(np.float64), starts)
    return found


def _ndcg(ranks: NDArray[np.int64], starts: NDArray[np.int64], n: NDArray[np.int64], k: int) -> Floats:
    discounted = np.add.reduceat(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0), starts)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    found: Floats = discounted / ideal[np.minimum(n, k) - 1]
    return found


def _mrr(ranks: NDArray[np.int64], starts: NDArray[np.int64], n: NDArray[np.int64], k: int) -> Floats:
    first = np.minimum.reduceat(ranks, starts)
    return np.where(first <= k, 1 / first, 0.0)


METRICS: dict[str, Metric] = {
    "hr": lambda ranks, starts, n, k: (_hits(ranks, starts, k) > 0).astype(np.float64),
    "recall": lambda ranks, starts, n, k: _hits(ranks, starts, k) / n,
    "precision": lambda ranks, starts, n, k: _hits(ranks, starts, k) / k,
    "f1": lambda ranks, starts, n, k: 2 * _hits(ranks, starts, k) / (n + k),
    "ndcg": _ndcg,
    "mrr": _mrr,
}
