"""Popularity: everybody is offered what most events are about. The floor of every other recommender."""

import numpy as np
import torch
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender


class PopularityConfig(Config):
    """Options of ``Popularity``.

    Attributes:
        recent_days: count only the last so many days of the training data; all of it when None.
    """

    recent_days: float | None = None


class Popularity(Recommender[PopularityConfig]):
    """Ranks items by their number of events."""

    name = "popularity"
    config_type = PopularityConfig

    def _fit(self, train: Interactions) -> nn.Module:
        index = train.item_index
        if self.config.recent_days is not None:
            times = train.events["timestamp"].to_numpy()
            index = index[times > times.max() - self.config.recent_days * 86_400]
        return _Constant(torch.from_numpy(np.bincount(index, minlength=train.n_items + 1)[1:]).float())


class _Constant(nn.Module):
    scores: Tensor

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def forward(self, history: Tensor) -> Tensor:
        return self.scores.expand(history.shape[0], -1)
