"""EASE, a linear autoencoder with a closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv 1905.03375, section 3.1.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.corpora.interactions import Histories, Interactions
from aftersales.recommenders.base import Recommender

# Users whose dense rows are held in memory at a time.
USERS_AT_ONCE = 4096


class EaseConfig(Config):
    """Options of ``Ease``.

    Attributes:
        l2: weight of the squared norm of the item-item matrix (lambda in the paper).
    """

    l2: float = Field(default=100.0, gt=0)


class Ease(Recommender[EaseConfig]):
    """Scores an item by the learned similarity of the items in the history to it.

    Needs memory for a few dense matrices of shape (n_items, n_items).
    """

    name = "ease"
    config_type = EaseConfig

    def _fit(self, train: Interactions) -> nn.Module:
        return _Linear(item_weights(train.histories(), train.n_items, self.config.l2).float())


def item_weights(histories: Histories, n_items: int, l2: float) -> Tensor:
    """Return B of shape (n_items, n_items), float64: it minimises |X - XB|² + l2 |B|² with a zero diagonal.

    X is 1 where a user has at least one event with an item and 0 elsewhere. With P = (XᵀX + l2 I)⁻¹ the
    solution is B_ij = -P_ij / P_jj off the diagonal (equation 8).
    """
    gram = torch.zeros(n_items, n_items, dtype=torch.float64)
    for start in range(0, len(histories), USERS_AT_ONCE):
        history = torch.from_numpy(histories.select(start, start + USERS_AT_ONCE).padded())
        seen = _multi_hot(history, n_items).double()
        gram += seen.t() @ seen
    gram.diagonal().add_(l2)
    precision = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = -precision / precision.diagonal()
    weights.fill_diagonal_(0.0)
    return weights


class _Linear(nn.Module):
    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, history: Tensor) -> Tensor:
        return _multi_hot(history, self.weights.shape[0]) @ self.weights


def _multi_hot(history: Tensor, n_items: int) -> Tensor:
    """Return 1 where an item is in the history (batch, length) and 0 elsewhere, shape (batch, n_items)."""
    return torch.zeros(history.shape[0], n_items + 1).scatter(1, history, 1.0)[:, 1:]
