"""iALS, matrix factorisation of implicit feedback by alternating least squares, fitted by the ``implicit`` library.

Hu, Koren & Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM), section 4. Rendle
et al. 2022 (RecSys), arXiv 2110.14037, show that it stays competitive when tuned.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender
from aftersales.recommenders.factorised import Factorised
from aftersales.recommenders.history import latest, user_items

# Relative error of a user's factors, in the norm of their own equation.
TOLERANCE = 1e-6
AROUND_ONE = "; take a value around 1, or fewer factors"


class IalsConfig(Config):
    """Options of ``Ials``.

    Attributes:
        factors: dimensions of users and items.
        l2: weight of the squared norm of all factors (lambda in the paper).
        confidence: weight of an item that the user had an event with; all others weigh 1 (c in the paper).
        iterations: how often the factors of users and then of items are solved for.
        seed: of the first factors.
    """

    factors: int = Field(default=64, ge=1)
    l2: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=20.0, ge=1, le=1000)  # the graph grows with its root
    iterations: int = Field(default=15, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**32)


class Ials(Recommender[IalsConfig]):
    """Scores an item by the product of its factors and those of the user, which are solved for from the history.

    Users whom the model has never seen are therefore answered like all others.
    """

    name = "ials"
    config_type = IalsConfig

    def _fit(self, train: Interactions) -> nn.Module:
        factors = item_factors(csr_matrix(user_items(train.histories(), train.n_items)), self.config)
        return FoldIn(factors, self.config.l2, self.config.confidence)


def item_factors(seen: csr_matrix, config: IalsConfig) -> NDArray[np.float32]:
    """Return the factors of the items, shape (n_items, factors); those of an item without events are zero.

    Args:
        seen: 1 where a user had an event with an item, shape (users, n_items).
        config: the options.

    Raises:
        ConfigError: the equations have no finite solution with this ``l2``.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.recommender_base import ModelFitError

    model = AlternatingLeastSquares(
        factors=config.factors,
        regularization=config.l2,
        alpha=config.confidence,
        iterations=config.iterations,
        num_threads=torch.get_num_threads(),
        random_state=config.seed,
    )
    with threadpool_limits(1, "blas"):  # the library has threads of its own
        try:
            model.fit(seen)
        except ModelFitError as error:
            raise ConfigError(f"{error}: model.options.l2={config.l2:g} does not suit these{AROUND_ONE}") from None
    found: NDArray[np.float32] = model.item_factors
    return found


class FoldIn(Factorised):
    """The factors of a user from the history alone, and the scores that follow.

    With the item factors Y, the items h of a history and confidence c, equation 4 of the paper is

        (YᵀY + l2 I + (c - 1) Y_hᵀY_h) x = c Y_hᵀ1,    scores Y x.

    With YᵀY + l2 I = LLᵀ, rows z = L⁻¹y and u = Lᵀx it reads (I + (c - 1) Z_hᵀZ_h) u = c Z_hᵀ1, scores Z u. No
    eigenvalue of Z_hᵀZ_h exceeds one, because ZᵀZ = I - l2 L⁻¹L⁻ᵀ, so the condition number of the system is at most c
    and conjugate gradients need a number of steps that is known beforehand (Saad 2003, "Iterative Methods for Sparse
    Linear Systems", section 6.11.3). Unlike a solver, they are made of operators that ONNX has.
    """

    whitened: Tensor

    def __init__(self, factors: NDArray[np.float32], l2: float, confidence: float) -> None:
        super().__init__()
        y = torch.from_numpy(factors).double()
        try:
            lower = torch.linalg.cholesky(y.t() @ y + l2 * torch.eye(y.shape[1], dtype=y.dtype))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise ConfigError(f"model.options.l2={l2:g} is lost beside the factors{AROUND_ONE}") from None
        z = torch.linalg.solve_triangular(lower, y.t(), upper=False).t()
        self.confidence = confidence
        self.steps = _steps(confidence)
        self.register_buffer("whitened", nn.functional.pad(z, (0, 0, 1, 0)).float())  # row 0 is padding

    def state(self, history: Tensor, *_: Tensor) -> Tensor:
        """Return u of every user, shape (batch, factors)."""
        rows = self.whitened[latest(history)[0]]  # (batch, length, factors)
        system = (self.confidence - 1) * (rows.transpose(1, 2) @ rows) + torch.eye(rows.shape[2])
        return _conjugate_gradients(system, self.confidence * rows.sum(dim=1), self.steps)

    def vectors(self) -> Tensor:
        """Return Z, shape (n_items, factors)."""
        return self.whitened[1:]


def _steps(condition: float) -> int:
    """Return how many steps of conjugate gradients bring the error below ``TOLERANCE``."""
    root = math.sqrt(condition)
    return 1 if root == 1 else math.ceil(math.log(2 / TOLERANCE) / math.log((root + 1) / (root - 1)))


def _conjugate_gradients(system: Tensor, right: Tensor, steps: int) -> Tensor:
    """Solve ``system`` (batch, d, d) x = ``right`` (batch, d) for every row (Hestenes & Stiefel 1952, J. Res. NBS)."""
    solution, residual, direction = torch.zeros_like(right), right, right
    square = (residual * residual).sum(dim=1, keepdim=True)
    for _ in range(steps):
        image = (system @ direction[:, :, None])[:, :, 0]
        # A system that is solved already has nothing left to divide by.
        length = square / (direction * image).sum(dim=1, keepdim=True).clamp(min=TINY)
        solution = solution + length * direction
        residual = residual - length * image
        before, square = square, (residual * residual).sum(dim=1, keepdim=True)
        direction = residual + square / before.clamp(min=TINY) * direction
    return solution


TINY = float(torch.finfo(torch.float32).tiny)
