"""What lists of recommendations are like, whether or not they hold a target: novel, diverse, full of bestsellers."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.stats import rankdata

from aftersales.corpora.interactions import Interactions

Floats = NDArray[np.float64]
# Users whose lists are compared at once, item by item.
USERS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the items from training data; every array has a row 0 for padding.

    Attributes:
        information: self-information in bits, -log2 of the share of users who have the item; one that nobody has counts
            like one that one user has. Shape (n_items + 1,).
        percentile: place among all items by number of events, 0 the least and 1 the most popular, equal ones in the
            middle of theirs. Shape (n_items + 1,).
        categories: number of the item's category, from 1; None where an item has none. Shape (n_items + 1,).
        seen: 1 where a user has an item, shape (users, n_items + 1).
    """

    information: Floats
    percentile: Floats
    categories: NDArray[np.int64] | None
    seen: csc_array

    @classmethod
    def of(cls, train: Interactions) -> Self:
        """Gather the facts of a catalogue and its training events."""
        histories, width = train.histories(), train.n_items + 1
        pairs = np.unique(histories.rows * width + histories.items)
        seen = csc_array((np.ones(len(pairs)), (pairs // width, pairs % width)), shape=(len(histories), width))
        users = np.bincount(pairs % width, minlength=width)
        events = np.bincount(histories.items, minlength=width)[1:]
        category = train.items["category"].astype(str)
        return cls(
            information=np.append(0.0, -np.log2(np.maximum(users[1:], 1) / len(histories))),
            percentile=np.append(0.0, (rankdata(events) - 0.5) / train.n_items),
            categories=None if (category == "").any() else np.append(0, pd.factorize(category)[0] + 1),
            seen=seen,
        )

    def similarity(self, lists: NDArray[np.int64]) -> Floats:
        """Return how similar the items of each list are, shape (users, k, k), 0 where there is none.

        1 for items of one category; without categories the cosine of who has them.
        """
        if self.categories is not None:
            category = self.categories[lists]
            alike: Floats = (category[:, :, None] == category[:, None, :]).astype(np.float64)
            return alike * (category > 0)[:, :, None]
        shown, place = np.unique(lists, return_inverse=True)
        table = self.seen[:, shown]
        norm = np.sqrt(np.maximum(table.sum(axis=0), 1))
        cosine = csr_array((table.T @ table).tocsr())
        place = place.reshape(lists.shape)
        left, right = np.broadcast_arrays(place[:, :, None], place[:, None, :])
        found = np.asarray(cosine[left.ravel(), right.ravel()]).reshape(left.shape)
        similar: Floats = found / (norm[left] * norm[right])
        return similar


def list_figures(
    lists: NDArray[np.int64], targets: NDArray[np.int64], facts: ItemFacts, cutoffs: tuple[int, ...]
) -> dict[str, float]:
    """Return what the lists are like on average over users.

    Args:
        lists: item indices, best first, shape (users, at least the greatest cut-off or all items); 0 where a list ends
            earlier. A user without any recommendation is left out of the means.
        targets: item indices that were bought then, shape (targets,).
        facts: of the training data.
        cutoffs: values of k.

    Returns:
        For every k ``novelty@k``: mean self-information in bits (Zhou et al. 2010, arXiv 0808.2670); ``diversity@k``:
        one less the mean similarity of two items of a list, by category or else by co-occurrence (Ziegler et al. 2005,
        "Improving Recommendation Lists Through Topic Diversification", WWW); ``popularity@k``: mean popularity
        percentile; ``popularity_bias@k``: by how much that exceeds the percentile of what was bought.
    """
    bought = float(facts.percentile[targets].mean())
    similarity = _similarities(lists, facts, cutoffs)
    figures: dict[str, float] = {}
    for k in cutoffs:
        first = lists[:, :k]
        popularity = _mean(facts.percentile[first], first > 0)
        figures |= {
            f"novelty@{k}": _mean(facts.information[first], first > 0),
            f"diversity@{k}": 1 - _mean_of_some(similarity[k]),
            f"popularity@{k}": popularity,
            f"popularity_bias@{k}": popularity - bought,
        }
    return figures


def _similarities(lists: NDArray[np.int64], facts: ItemFacts, cutoffs: tuple[int, ...]) -> dict[int, Floats]:
    """Return the mean similarity of two of each user's first k items, NaN without two, shape (users,), for every k."""
    found: dict[int, list[Floats]] = {k: [] for k in cutoffs}
    for start in range(0, len(lists), USERS_AT_ONCE):
        part = lists[start : start + USERS_AT_ONCE]
        similarity = facts.similarity(part)
        for k in cutoffs:
            found[k].append(_means(similarity[:, :k, :k], _pairs(part[:, :k])))
    return {k: np.concatenate(parts) for k, parts in found.items()}


def _pairs(first: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pairs of places hold two items, shape (users, k, k)."""
    filled = first > 0
    return filled[:, :, None] & filled[:, None, :] & ~np.eye(first.shape[1], dtype=bool)


def _mean(values: Floats, counted: NDArray[np.bool_]) -> float:
    """Return the mean over users of the mean over what counts; users with nothing that counts are left out."""
    return _mean_of_some(_means(values, counted))


def _means(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return each user's mean over what counts, NaN where nothing does, shape (users,)."""
    axes = tuple(range(1, values.ndim))
    number = counted.sum(axis=axes)
    total = np.where(counted, values, 0.0).sum(axis=axes)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _mean_of_some(values: Floats) -> float:
    """Return the mean of what is a number, NaN where nothing is."""
    some = values[~np.isnan(values)]
    return float(some.mean()) if len(some) else float("nan")
