"""Models whose scores are the products of a state with one vector an item: they can be searched, however many items."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Factorised(nn.Module, ABC):
    """A module as the contract of ``recommenders.base`` wants it, in two parts."""

    @abstractmethod
    def state(self, history: Tensor, kinds: Tensor, ages: Tensor) -> Tensor:
        """Return what is looked for after each history, float32 of shape (batch, dimensions)."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """Return the items, float32 of shape (n_items, dimensions)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return scores (batch, n_items)."""
        return self.state(*inputs) @ self.vectors().t()
