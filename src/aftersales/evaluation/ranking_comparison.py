"""Rankings side by side: with intervals over users and seeds, paired, and apart for cold and warm users and items."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import DataError
from aftersales.corpora.histories import Holdout
from aftersales.corpora.interactions import Interactions
from aftersales.evaluation.classification import Difference, Figure
from aftersales.evaluation.intervals import resampled_means
from aftersales.evaluation.rank_metrics import METRICS, gains
from aftersales.evaluation.ranking import Ranking

# Users with fewer events in their history, and items with fewer in training, are cold.
FEW = 5


def over_seeds(
    metrics: Sequence[str], runs: Sequence[Ranking], floors: Sequence[Ranking]
) -> dict[str, tuple[Figure, Difference]]:
    """Return the mean of each metric over several trainings, and its paired difference to the floor.

    The intervals cover both what other users and what other seeds would have given: every resample draws users, the
    same for all rankings, and trainings with replacement (Efron & Tibshirani 1993, chapter 8).

    Args:
        metrics: names with cut-offs; see ``rank_metrics.gains``.
        runs: one ranking a training.
        floors: the floor beside each of them; the same one several times where it has no seed.

    Raises:
        DataError: the rankings are not of the same users, or there are not as many floors as runs.
    """
    if not runs or len(runs) != len(floors):
        raise DataError(f"{len(runs)} rankings and {len(floors)} floors; give one floor beside each ranking")
    if len({len(one.lists) for one in (*runs, *floors)}) > 1:
        raise DataError("the rankings are of different users; rank the same holdout with every model")
    table = np.stack([[one.values(metric) for one in (*runs, *floors)] for metric in metrics])  # metric, model, user
    means = resampled_means(table.reshape(-1, table.shape[2]).T).reshape(-1, *table.shape[:2])
    picked = np.random.default_rng(1).integers(0, len(runs), size=(len(means), 1, len(runs)))
    ours = np.take_along_axis(means, picked, axis=2).mean(axis=2)
    theirs = np.take_along_axis(means, picked + len(runs), axis=2).mean(axis=2)
    value, below = table[:, : len(runs)].mean(axis=(1, 2)), table[:, len(runs) :].mean(axis=(1, 2))
    return {
        metric: (
            Figure(float(value[m]), *_interval(ours[:, m])),
            Difference(float(value[m] - below[m]), *_interval(ours[:, m] - theirs[:, m])),
        )
        for m, metric in enumerate(metrics)
    }


def warm_and_cold(ranking: Ranking, holdout: Holdout, train: Interactions) -> dict[str, dict[str, float]]:
    """Return the figures apart for cold users, warm users, cold items and warm items; see ``FEW``.

    Args:
        ranking: of the targets of ``holdout``.
        holdout: whose histories say how cold a user is.
        train: whose events say how cold an item is.

    Returns:
        Group -> ``targets``, how many it has, and every metric at every cut-off; a group without targets is left out.
        An item's group holds the users who bought one, with their targets of that group alone.
    """
    cold_user = (holdout.histories.lengths < FEW)[holdout.rows]
    cold_item = np.bincount(train.item_index, minlength=train.n_items + 1)[holdout.targets] < FEW
    groups = {"cold users": cold_user, "warm users": ~cold_user, "cold items": cold_item, "warm items": ~cold_item}
    return {name: _figures(ranking, holdout.rows, chosen) for name, chosen in groups.items() if chosen.any()}


def _figures(ranking: Ranking, rows: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, float]:
    per_user = np.bincount(rows[chosen])
    offsets = np.append(0, np.cumsum(per_user[per_user > 0]))
    names = [f"{name}@{k}" for name in METRICS for k in ranking.coverage]
    means = {name: float(gains(name, ranking.ranks[chosen], offsets).mean()) for name in names}
    return {"targets": int(chosen.sum()), **means}


def _interval(means: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
