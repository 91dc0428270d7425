"""Full-ranking evaluation of recommenders: each target is ranked against every candidate.

Never against a sample of them: Krichene & Rendle 2020, "On Sampled Metrics for Item Recommendation" (KDD).
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import DataError, ModelError
from aftersales.corpora.histories import Holdout, Scorer
from aftersales.evaluation.classification import Figure
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.rank_metrics import METRICS, gains
from aftersales.runtime.events import PastEvent
from aftersales.runtime.recommender import Recommender

CUTOFFS = (5, 10, 20)
# Scores in memory at a time; with what is made of them, each takes about 30 bytes.
SCORES_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Ranking:
    """Where the targets came, and what was shown.

    Attributes:
        ranks: rank of every target from 1, int64 of shape (targets,).
        coverage: cut-off k -> share of the candidates that stand in at least one user's first k.
        lists: item indices of each user's first places, best first, 0 where nothing may be shown, int64 of shape
            (users, greatest k or all items).
        offsets: user u's targets are ``ranks[offsets[u]:offsets[u + 1]]``; None where each has one.
    """

    ranks: NDArray[np.int64]
    coverage: dict[int, float]
    lists: NDArray[np.int64]
    offsets: NDArray[np.int64] | None = None

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return a metric's value for every user, shape (users,); see ``rank_metrics.gains``."""
        return gains(metric, self.ranks, self.offsets)

    def figure(self, metric: str) -> Figure:
        """Return a metric's mean over users with its interval."""
        values = self.values(metric)
        return Figure(float(values.mean()), *bootstrap_interval(values))

    def figures(self) -> dict[str, float]:
        """Return every metric at every cut-off, coverage included."""
        means = {f"{name}@{k}": float(self.values(f"{name}@{k}").mean()) for name in METRICS for k in self.coverage}
        return means | {f"coverage@{k}": share for k, share in self.coverage.items()}


def evaluate_ranking(
    score: Scorer,
    holdout: Holdout,
    candidates: NDArray[np.bool_] | None = None,
    exclude_history: bool = False,
    cutoffs: Sequence[int] = CUTOFFS,
    batch_size: int = 1024,
) -> Ranking:
    """Rank every target.

    Args:
        score: histories of some users -> scores (users, n_items).
        holdout: histories and targets.
        candidates: items that may be shown, shape (n_items,); all of them when None.
        exclude_history: take the items of the history off the list. A target that stands in the history, such
            as a consumable bought again, then is a miss by definition: its rank is n_items.
        cutoffs: values of k for the lists and the coverage.
        batch_size: users scored, and targets ranked, at once; fewer where the catalogue is large.

    Returns:
        Ranks and lists in which items of equal score come in the order of the catalogue, as they do when served.

    Raises:
        DataError: there is no user, or a target is no candidate.
        ModelError: a score is not a finite number.
    """
    if not len(holdout.targets):
        raise DataError("there is no user to evaluate; give longer histories")
    if candidates is not None and not candidates[holdout.targets - 1].all():
        raise DataError("a target is not among the candidates; evaluate on targets that may be shown")
    batch_size = min(batch_size, max(1, SCORES_AT_ONCE // _n_items(score, holdout)))
    rows, ranks, lists, n_candidates = holdout.rows, np.empty_like(holdout.targets), [], 0
    for start in range(0, len(holdout.histories), batch_size):
        histories = holdout.histories.select(start, start + batch_size)
        scores = np.array(score(histories), dtype=np.float32)
        if not np.isfinite(scores).all():
            raise ModelError("the model gave a score that is not a finite number; train it again")
        n_candidates = scores.shape[1] if candidates is None else int(candidates.sum())
        if candidates is not None:
            scores[:, ~candidates] = -np.inf
        if exclude_history:
            scores[histories.rows, histories.items - 1] = -np.inf
        keys = ranking_keys(scores)
        lists.append(_first(keys, max(cutoffs)))
        begin, end = np.searchsorted(rows, [start, start + len(scores)])
        for piece in range(begin, end, batch_size):
            part = slice(piece, min(piece + batch_size, end))
            ranks[part] = _ranks(keys, rows[part] - start, holdout.targets[part])
    shown = np.concatenate(lists)
    coverage = {k: len(np.setdiff1d(shown[:, :k], [0])) / n_candidates for k in cutoffs}
    return Ranking(ranks, coverage, shown, holdout.offsets)


def _n_items(score: Scorer, holdout: Holdout) -> int:
    """Return how many items a scorer scores."""
    return int(score(holdout.histories.select(0, 1)).shape[1])


def ranking_keys(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return whole numbers in the order of the ranking, largest first, no two alike in a row.

    The upper half of a number is the score, whose bits are in the order of the numbers once those of negative ones are
    flipped; the lower half is the place in the catalogue, so that of equal scores the earlier item comes first.
    """
    keys = _in_order(scores).astype(np.int64)
    keys <<= 32
    keys |= np.arange(scores.shape[1] - 1, -1, -1)
    return keys


def _in_order(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return whole numbers in the order of ``scores``."""
    bits = np.add(scores, 0, dtype=np.float32).view(np.int32)  # the sum turns -0 into 0
    ordered: NDArray[np.int32] = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return ordered


# Keys below this are of items with the score -inf, which must not be shown.
EXCLUDED = (int(_in_order(np.full(1, -np.inf, dtype=np.float32))[0]) + 1) << 32


def target_ranks(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank from 1 of each target, item index 1..n, among scores (users, n); excluded items are -inf.

    An excluded target has the last rank.
    """
    return _ranks(ranking_keys(scores), np.arange(len(targets)), targets)


def _ranks(keys: NDArray[np.int64], rows: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each target in its row of ``keys``."""
    own = keys[rows, targets - 1]
    table = keys if np.array_equal(rows, np.arange(len(keys))) else keys[rows]
    ranks: NDArray[np.int64] = 1 + (table > own[:, None]).sum(axis=1)
    ranks[own < EXCLUDED] = keys.shape[1]
    return ranks


def _first(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the item indices of the first k of each row, in order; 0 where only excluded ones are left."""
    k = min(k, keys.shape[1])
    top = np.argpartition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    found = np.take_along_axis(keys, top, axis=1)
    order = np.argsort(-found, axis=1)
    items = np.take_along_axis(top, order, axis=1) + 1
    return np.where(np.take_along_axis(found, order, axis=1) < EXCLUDED, 0, items)


def served_ranks(
    model: Recommender,
    histories: Sequence[Sequence[PastEvent]],
    targets: Sequence[str],
    candidates: Set[str],
    exclude_history: bool,
) -> NDArray[np.int64]:
    """Return the rank of each target as an exported model would serve it, int64 of shape (users,).

    Args:
        model: loaded from its folder; its catalogue may be another than that of the evaluation.
        histories: events of each user, oldest first.
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
        scores = np.where(shown, model.scores(model.inputs(history))[0], -np.inf)
        if exclude_history:
            scores[[model.index[event.item_id] - 1 for event in history if event.item_id in model.index]] = -np.inf
        ranks[row] = target_ranks(scores[None], np.array([model.index[target]]))[0]
    return ranks
