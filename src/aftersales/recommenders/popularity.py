"""Popularity: everybody is offered what most events are about. The floor of every other recommender."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.core.errors import DataError
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender

DAY = 86_400


class PopularityConfig(Config):
    """Options of ``Popularity``; both may be given.

    Attributes:
        recent_days: count only the last so many days of the training data; all of it when None.
        half_life_days: an event so many days before the end of the training data counts half; all count the same
            when None.
    """

    recent_days: float | None = Field(default=None, gt=0)
    half_life_days: float | None = Field(default=None, gt=0)


class Popularity(Recommender[PopularityConfig]):
    """Ranks items by their number of events."""

    name = "popularity"
    config_type = PopularityConfig

    def _fit(self, train: Interactions) -> nn.Module:
        return _Constant(self._without_history(train))

    def _without_history(self, train: Interactions) -> Tensor:
        weights = self._event_weights(train)
        return torch.from_numpy(np.bincount(train.item_index, weights, minlength=train.n_items + 1)[1:]).float()

    def _event_weights(self, train: Interactions) -> np.ndarray | None:
        """Return what each event counts, shape (events,); None where all count the same."""
        recent_days, half_life = self.config.recent_days, self.config.half_life_days
        if recent_days is None and half_life is None:
            return None
        if not train.timed:
            raise DataError("these events have an order but no times; leave out recent_days and half_life_days")
        times = train.events["timestamp"].to_numpy()
        age = (times.max() - times) / DAY
        weights = np.ones(len(age)) if half_life is None else 0.5 ** (age / half_life)
        return weights if recent_days is None else weights * (age < recent_days)


class _Constant(nn.Module):
    scores: Tensor

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def forward(self, history: Tensor, *_: Tensor) -> Tensor:
        return self.scores.expand(history.shape[0], -1)
