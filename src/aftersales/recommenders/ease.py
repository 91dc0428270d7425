"""EASE, a linear autoencoder with a closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW), arXiv 1905.03375, section 3.1.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender
from aftersales.recommenders.history import recency, user_items

# In larger catalogues the rows of a history's items are looked up, in smaller ones the whole matrix is multiplied;
# which is faster depends on how long histories are beside the catalogue.
MANY_ITEMS = 5000
# Two matrices of float64 are in memory at a time.
BYTES_A_PAIR = 2 * 8


class EaseConfig(Config):
    """Options of ``Ease``.

    Attributes:
        l2: weight of the squared norm of the item-item matrix (lambda in the paper).
        half_life: after so many events an item of the history weighs half; all weigh the same when None, as in the
            paper.
        memory_gb: what the fit may take at most, in units of 10⁹ bytes; it needs 16 bytes for each pair of items.
    """

    l2: float = Field(default=100.0, gt=0)
    half_life: float | None = Field(default=None, gt=0)
    memory_gb: float = Field(default=8.0, gt=0)


class Ease(Recommender[EaseConfig]):
    """Scores an item by the learned similarity of the items in the history to it.

    Memory grows with the square of the catalogue: 1.6 GB for 10,000 items, and 0.4 GB in the exported graph.
    """

    name = "ease"
    config_type = EaseConfig

    def _fit(self, train: Interactions) -> nn.Module:
        needed = BYTES_A_PAIR * train.n_items**2 / 1e9
        if needed > self.config.memory_gb:
            raise ConfigError(
                f"ease needs {needed:.1f} GB for {train.n_items:,} items and memory_gb allows "
                f"{self.config.memory_gb:g}; take item_knn or ials for so many items, or raise memory_gb"
            )
        weights = item_weights(train.histories(), train.n_items, self.config.l2).float()
        return _Linear(weights, self.config.half_life)

    def _numbers_a_place(self, train: Interactions) -> int:
        return train.n_items if train.n_items > MANY_ITEMS else 1


def item_weights(histories: Histories, n_items: int, l2: float) -> Tensor:
    """Return B of shape (n_items, n_items), float64: it minimises |X - XB|² + l2 |B|² with a zero diagonal.

    X is 1 where a user has at least one event with an item and 0 elsewhere. With P = (XᵀX + l2 I)⁻¹ the
    solution is B_ij = -P_ij / P_jj off the diagonal.

    Raises:
        ConfigError: ``l2`` is so small that the matrix cannot be inverted.
    """
    seen = user_items(histories, n_items)
    gram = torch.from_numpy((seen.T @ seen).toarray())
    gram.diagonal().add_(l2)
    try:
        lower = torch.linalg.cholesky(gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise ConfigError(f"model.options.l2={l2:g} is lost beside the counts of these items; raise it") from None
    del gram  # lest there be three of them
    weights = torch.cholesky_inverse(lower)
    del lower
    weights.div_(-weights.diagonal().clone())
    weights.fill_diagonal_(0.0)
    return weights


class _Linear(nn.Module):
    weights: Tensor

    def __init__(self, weights: Tensor, half_life: float | None) -> None:
        super().__init__()
        self.half_life = half_life
        self.register_buffer("weights", functional.pad(weights, (0, 0, 1, 0)))  # row 0 is padding

    def forward(self, history: Tensor, *_: Tensor) -> Tensor:
        item, weight = recency(history, self.half_life)
        n_items = self.weights.shape[1]
        if n_items > MANY_ITEMS:
            return (weight[:, None] @ self.weights[item])[:, 0]
        return torch.zeros(history.shape[0], n_items + 1).scatter_add(1, item, weight) @ self.weights
