"""Item-based nearest neighbours: what the customers of an item also bought.

Deshpande & Karypis 2004, "Item-Based Top-N Recommendation Algorithms" (ACM TOIS 22); the shrinkage is that of Koren
2008, "Factorization Meets the Neighborhood" (KDD), section 2.2. Well tuned, it beats most neural models on
small data (Ferrari Dacrema et al. 2019, RecSys, arXiv 1907.06902).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array, diags_array
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender
from aftersales.recommenders.history import recency, user_item_counts, user_items

Weighting = Literal["cosine", "tfidf", "bm25"]
# Items whose similarities to all others are in memory at a time.
ITEMS_AT_ONCE = 1024
# BM25's saturation and length normalisation, Robertson & Zaragoza 2009.
K1, B = 1.2, 0.75
# By how great a share of the greatest similarity the least popular item is below zero. What has no neighbour in the
# history stands between it and zero, by popularity, and so behind everything that has one, however long ago.
BELOW = 1e-6


class ItemKnnConfig(Config):
    """Options of ``ItemKnn``.

    Attributes:
        weighting: of the items' vectors over users. ``cosine`` of 0 and 1, ``tfidf``: cosine after weighting users by
            how few items they have, ``bm25``: product of BM25 weights.
        shrinkage: a similarity that rests on n common users is multiplied by n / (n + shrinkage).
        neighbours: how many most similar items of each item are kept.
        half_life: after so many events an item of the history weighs half; all weigh the same when None.
        repeat: similarity of an item to itself, for shops where the same is bought again.
    """

    weighting: Weighting = "cosine"
    shrinkage: float = Field(default=10.0, ge=0)
    neighbours: int = Field(default=100, ge=1)
    half_life: float | None = Field(default=None, gt=0)
    repeat: float = Field(default=0.0, ge=0)


class ItemKnn(Recommender[ItemKnnConfig]):
    """Scores an item by the sum of its similarities to the items of the history whose neighbour it is.

    Items that are no neighbour of any come behind those that are, the most popular first.

    Needs memory for ``neighbours`` numbers an item, and for what pairs of items have common users in one block.
    """

    name = "item_knn"
    config_type = ItemKnnConfig

    def _fit(self, train: Interactions) -> nn.Module:
        indices, values = nearest_items(train.histories(), train.n_items, self.config)
        itself = np.arange(train.n_items + 1)[:, None]
        indices = np.hstack([itself, indices])
        values = np.hstack([np.full(itself.shape, self.config.repeat), values])
        counts = np.bincount(train.item_index, minlength=train.n_items + 1)
        rest = (counts / counts.max() - 1) * (values.max() or 1.0) * BELOW
        return _Neighbours(
            torch.from_numpy(indices),
            torch.from_numpy(values).float(),
            torch.from_numpy(rest).float(),
            self.config.half_life,
        )

    def _numbers_a_place(self, train: Interactions) -> int:
        return 4 * (self.config.neighbours + 1)


def nearest_items(
    histories: Histories, n_items: int, config: ItemKnnConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the most similar items of each item, and how similar they are.

    Returns:
        Item indices, int64, and similarities, float64, both of shape (n_items + 1, k), most similar first; row and
        index 0 are padding. Equal similarities come in the order of the catalogue.
    """
    k = min(config.neighbours, n_items)
    indices, values = np.zeros((n_items + 1, k), dtype=np.int64), np.zeros((n_items + 1, k))
    seen = user_items(histories, n_items)
    weighted = _weighted(user_item_counts(histories, n_items), config.weighting)
    for start in range(0, n_items, ITEMS_AT_ONCE):
        block = _similarities(weighted, seen, slice(start, start + ITEMS_AT_ONCE), config.shrinkage)
        for row, (begin, end) in enumerate(zip(block.indptr[:-1], block.indptr[1:], strict=True), start):
            columns, similar = block.indices[begin:end], block.data[begin:end]
            columns, similar = columns[columns != row], similar[columns != row]
            best = np.argsort(-similar, kind="stable")[:k]
            indices[row + 1, : len(best)] = columns[best] + 1
            values[row + 1, : len(best)] = similar[best]
    return indices, values


def _weighted(counts: csr_array, weighting: Weighting) -> csr_array:
    """Return users x items such that the products of its columns are the similarities before shrinkage."""
    items_of_user = np.diff(counts.indptr)
    rare = np.repeat(np.log((1 + counts.shape[1]) / (1 + items_of_user)) + 1, items_of_user)
    weights = counts.copy()
    if weighting == "bm25":
        length = counts.sum(axis=0)
        long = (1 - B + B * length / length.mean())[counts.indices]
        weights.data = rare * counts.data * (K1 + 1) / (counts.data + K1 * long)
        return weights
    weights.data = np.ones_like(counts.data) if weighting == "cosine" else np.sqrt(counts.data) * rare
    norm = np.sqrt(weights.power(2).sum(axis=0))
    return csr_array(weights @ diags_array(1 / np.where(norm > 0, norm, 1.0)))


def _similarities(weighted: csr_array, seen: csr_array, items: slice, shrinkage: float) -> csr_array:
    """Return the similarities of some items to all, with the columns of each row in order."""
    similar = csr_array(weighted[:, items].T @ weighted)
    if shrinkage:
        # Every weight is positive, so both products have their numbers in the same places.
        common = csr_array(seen[:, items].T @ seen)
        similar.sort_indices()
        common.sort_indices()
        similar.data *= common.data / (common.data + shrinkage)
    similar.sort_indices()
    return similar


class _Neighbours(nn.Module):
    indices: Tensor
    values: Tensor
    rest: Tensor

    def __init__(self, indices: Tensor, values: Tensor, rest: Tensor, half_life: float | None) -> None:
        super().__init__()
        self.half_life = half_life
        self.register_buffer("indices", indices)
        self.register_buffer("values", values)
        self.register_buffer("rest", rest)

    def forward(self, history: Tensor, *_: Tensor) -> Tensor:
        item, weight = recency(history, self.half_life)
        values = self.values[item] * weight[:, :, None]
        nothing = torch.zeros_like(self.rest).repeat(history.shape[0], 1)
        scores = nothing.scatter_add(1, self.indices[item].flatten(1), values.flatten(1))
        return torch.where(scores > 0, scores, self.rest)[:, 1:]
