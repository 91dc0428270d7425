"""SASRec behind the interface of recommenders."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from aftersales.core.errors import DataError
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Judge, Recommender
from aftersales.recommenders.features import ItemTable
from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.recommenders.sequential.losses import Loss
from aftersales.recommenders.sequential.network import Ranker
from aftersales.recommenders.sequential.training import Network, train
from aftersales.recommenders.sequential.windows import Windows


class Sequential(Recommender[SequentialConfig]):
    """Predicts the next item from the order of the events before it."""

    name = "sequential"
    config_type = SequentialConfig

    def __init__(self, config: SequentialConfig) -> None:
        """Make an unfitted one."""
        super().__init__(config)
        self.cold_items = bool(config.features)

    def _fit(self, train: Interactions) -> nn.Module:
        return self._fit_judged(train, None, None)

    def _fit_judged(self, learned: Interactions, judge: Judge | None, work: Path | None) -> nn.Module:
        config = self.config
        if config.times and not learned.timed:
            raise DataError("these events have an order but no times; leave out model.options.times")
        windows = Windows.of(learned.histories(), config)
        if not len(windows):
            what = f"one of model.options.targets ({', '.join(config.targets)})" if config.targets else "another event"
            raise DataError(
                f"no user has an event and then {what}, so there is no order to learn; give longer histories or more "
                "kinds in data.history, or take popularity"
            )
        counts = np.bincount(learned.item_index, minlength=learned.n_items + 1)[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            items = ItemTable.of(
                learned.items, counts > 0, config.features, config.dimensions, config.id_dropout, config.encoder
            )
            network = Network(items, config)
            judged = partial(self._figure, judge, learned) if judge else None
            progress = train(network, windows, Loss(config, counts), config, judged, work)
        self.curve = progress.figures
        if progress.best_epoch:
            self.chosen = {"stop_after": progress.best_epoch}
        return network.ranker()

    def _figure(self, judge: Judge, learned: Interactions, ranker: Ranker) -> float:
        """Return the validation figure of the network as it stands."""
        graph = self._contract(ranker, learned).to(ranker.matrix.device)
        return judge(lambda histories: self._scores(graph, learned, histories))
