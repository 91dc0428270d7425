"""Full-ranking evaluation of recommenders: each target is ranked against every candidate.

Never against a sample of them: Krichene & Rendle 2020, "On Sampled Metrics for Item Recommendation".
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import DataError, ModelError
from aftersales.corpora.interactions import Histories, Holdout
from aftersales.runtime.recommender import Recommender

CUTOFFS = (5, 10, 20)
Scorer = Callable[[Histories], NDArray[np.float32]]


@dataclass(frozen=True)
class Ranking:
    """Where each user's target came, and what was shown.

    Attributes:
        ranks: rank of the target from 1, int64 of shape (users,).
        coverage: cut-off k -> share of the candidates that stand in at least one user's first k.
    """

    ranks: NDArray[np.int64]
    coverage: dict[int, float]

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return ``hr@k``, ``ndcg@k`` or ``mrr@k`` of every user, shape (users,); their mean is the figure.

        With one target a user, HR@k is recall@k, and the ideal DCG of NDCG@k is 1.

        Raises:
            DataError: the metric is none of these.
        """
        return gains(metric, self.ranks)

    def figures(self) -> dict[str, float]:
        """Return every metric at every cut-off, coverage included."""
        means = {f"{name}@{k}": float(self.values(f"{name}@{k}").mean()) for name in _GAINS for k in self.coverage}
        return means | {f"coverage@{k}": share for k, share in self.coverage.items()}


def gains(metric: str, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each rank is worth in ``metric``; see ``Ranking.values``."""
    name, _, cutoff = metric.partition("@")
    if name not in _GAINS or not cutoff.isdigit():
        raise DataError(f"unknown ranking metric {metric!r}; it is {', '.join(f'{known}@k' for known in _GAINS)}")
    return np.where(ranks <= int(cutoff), _GAINS[name](ranks), 0.0)


_GAINS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "hr": lambda ranks: np.ones(len(ranks)),
    "ndcg": lambda ranks: 1 / np.log2(ranks + 1),
    "mrr": lambda ranks: 1 / ranks,
}


def evaluate_ranking(
    score: Scorer,
    holdout: Holdout,
    candidates: NDArray[np.bool_] | None = None,
    exclude_history: bool = False,
    cutoffs: Sequence[int] = CUTOFFS,
    batch_size: int = 1024,
) -> Ranking:
    """Rank every user's target.

    Args:
        score: histories of some users -> scores (users, n_items).
        holdout: histories and targets.
        candidates: items that may be shown, shape (n_items,); all of them when None.
        exclude_history: take the items of the history off the list. A target that stands in the history, such
            as a consumable bought again, then is a miss by definition: its rank is n_items.
        cutoffs: values of k for the coverage.
        batch_size: users scored at once.

    Returns:
        Ranks in which items of equal score come in the order of the catalogue, as they do when served.

    Raises:
        DataError: there is no user, or a target is no candidate.
        ModelError: a score is not a finite number.
    """
    if not len(holdout.targets):
        raise DataError("there is no user to evaluate; give longer histories")
    if candidates is not None and not candidates[holdout.targets - 1].all():
        raise DataError("a target is not among the candidates; evaluate on targets that may be shown")
    ranks = np.empty(len(holdout.targets), dtype=np.int64)
    shown: dict[int, set[int]] = {k: set() for k in cutoffs}
    n_candidates = 0
    for start in range(0, len(ranks), batch_size):
        histories = holdout.histories.select(start, start + batch_size)
        scores = np.array(score(histories))
        if not np.isfinite(scores).all():
            raise ModelError("the model gave a score that is not a finite number; train it again")
        n_candidates = scores.shape[1] if candidates is None else int(candidates.sum())
        if candidates is not None:
            scores[:, ~candidates] = -np.inf
        if exclude_history:
            scores[histories.rows, histories.items - 1] = -np.inf
        ranks[start : start + batch_size] = target_ranks(scores, holdout.targets[start : start + batch_size])
        for k, seen in shown.items():
            seen.update(_first(scores, k))
    return Ranking(ranks, {k: len(seen) / n_candidates for k, seen in shown.items()})


def target_ranks(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank from 1 of each target, item index 1..n, among scores (users, n); excluded items are -inf.

    An excluded target has the last rank.
    """
    own = scores[np.arange(len(targets)), targets - 1][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None] - 1
    ranks: NDArray[np.int64] = 1 + (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    ranks[np.isneginf(own[:, 0])] = scores.shape[1]
    return ranks


def _first(scores: NDArray[np.float32], k: int) -> set[int]:
    """Return the columns that stand in at least one row's first k; excluded ones never do."""
    k = min(k, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    allowed = ~np.isneginf(np.take_along_axis(scores, top, axis=1))
    return set(np.unique(top[allowed]).tolist())


def served_ranks(
    model: Recommender,
    histories: Sequence[Sequence[str]],
    targets: Sequence[str],
    candidates: Set[str],
    exclude_history: bool,
) -> NDArray[np.int64]:
    """Return the rank of each target as an exported model would serve it, int64 of shape (users,).

    Args:
        model: loaded from its folder; its catalogue may be another than that of the evaluation.
        histories: item ids of each user, oldest first.
        targets: item id of each user's target.
        candidates: item ids that may be shown.
        exclude_history: take the items of the history off the list.

    Returns:
        Ranks among the candidates that the model knows; a target it does not know comes behind all of them.
    """
    ids = [item.item_id for item in model.items]
    shown = np.array([item in candidates for item in ids])
    ranks = np.full(len(targets), len(ids) + 1, dtype=np.int64)
    for row, (history, target) in enumerate(zip(histories, targets, strict=True)):
        if target not in model.index:
            continue
        known = np.array([model.index[item] for item in history if item in model.index], dtype=np.int64)
        last = known[-model.max_history :] if len(known) else np.zeros(1, dtype=np.int64)
        scores = np.where(shown, model.scores(last[None])[0], -np.inf)
        if exclude_history:
            scores[known - 1] = -np.inf
        ranks[row] = target_ranks(scores[None], np.array([model.index[target]]))[0]
    return ranks
