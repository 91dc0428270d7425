"""What every recommender is: a configuration, a fit that yields one graph, and that graph's scores.

The graph is the whole contract. It maps events, ``history``, ``kinds`` and ``ages`` of shape (batch, length) as
``runtime.events.Inputs`` describes them, to ``scores``, float32 of shape (batch, n), column i for item index i + 1.
``score`` runs it and ``export`` writes it, so what is evaluated is what is served. Whether items that the user has
already bought are shown is a matter of ranking and not of the model.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aftersales.core.config import Config, build
from aftersales.core.errors import DataError, ModelError
from aftersales.core.files import write_json
from aftersales.corpora.histories import Histories, Scorer
from aftersales.corpora.interactions import Interactions
from aftersales.corpora.repurchase import repurchase_days
from aftersales.recommenders.export import write_graph
from aftersales.recommenders.factorised import Factorised
from aftersales.runtime.catalogue import CatalogueItem
from aftersales.runtime.rankers import SCORE_GRAPH, STATE_GRAPH, Fallback
from aftersales.runtime.retrieval import ItemIndex

C = TypeVar("C", bound=Config)
# Longer histories are cut to their last items, as they are when the model is served.
MAX_HISTORY = 1000
# Numbers that a model may make of the histories it scores at once.
NUMBERS_AT_ONCE = 1 << 24
# What one file of ONNX (protobuf) can hold.
MAX_GRAPH_BYTES = 2**31 - 1
# Above so many items a search is faster than scoring all (experiments/recommend/LATENCY.md).
LARGE = 50_000
# How good a scorer is on validation, higher is better.
Judge = Callable[[Scorer], float]


class Recommender(ABC, Generic[C]):
    """Template of a recommender; a subclass gives ``name``, ``config_type`` and ``_fit``.

    Attributes:
        name: under which configurations and the registry know it.
        config_type: the class of its configuration.
        cold_items: whether it has an answer for items without events in training; otherwise they come last.
        chosen: options that the last fit chose by validation figures, to fit more data with.
        curve: validation figures of the last fit, as (epoch, figure).
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Config]]
    cold_items: bool = False

    def __init__(self, config: C) -> None:
        self.config = config
        self.chosen: dict[str, Any] = {}
        self.curve: list[tuple[int, float]] = []
        self._fitted: tuple[_Contract, Interactions] | None = None

    @classmethod
    def from_options(cls, options: dict[str, Any], origin: str = "model.options") -> Self:
        """Build from plain values.

        Raises:
            ConfigError: an unknown option (the nearest valid one is named) or a wrong value.
        """
        return cls(build(cls.config_type, options, origin))  # type: ignore[arg-type]  # config_type is C's class

    def fit(self, train: Interactions, judge: Judge | None = None, work: Path | None = None) -> Self:
        """Learn from all events of ``train``; a second call forgets the first.

        Args:
            train: the events.
            judge: gives the validation figure of a scorer, for models that have something to choose by it.
            work: folder for the checkpoints of models that take long; stopped and called again with the same folder,
                such a model goes on.

        Raises:
            DataError: there is no event.
        """
        if train.events.empty:
            raise DataError("there are no events to learn from; give interactions with purchases")
        self.chosen, self.curve = {}, []
        self._fitted = self._contract(self._fit_judged(train, judge, work), train), train
        return self

    def _contract(self, model: nn.Module, train: Interactions) -> "_Contract":
        """Return the graph around a module as ``_fit`` returns it."""
        known = np.bincount(train.item_index, minlength=train.n_items + 1)[1:] > 0
        return _Contract(model, self._without_history(train), torch.from_numpy(known | self.cold_items)).eval()

    def _fit_judged(self, train: Interactions, judge: Judge | None, work: Path | None) -> nn.Module:
        """Like ``_fit``, for models with something to choose or with checkpoints; see ``fit``."""
        return self._fit(train)

    @abstractmethod
    def _fit(self, train: Interactions) -> nn.Module:
        """Return a module from ``history``, ``kinds`` and ``ages`` to scores (batch, n_items); see the file's head.

        It must not depend on the number of zeros before a history and need not answer an empty one.
        """

    def _numbers_a_place(self, train: Interactions) -> int:
        """Return about how many numbers the module makes of each place of a padded history, lest memory run out."""
        return 256

    def _without_history(self, train: Interactions) -> Tensor:
        """Return the scores for an empty history, shape (n_items,): how many events each item has."""
        return torch.from_numpy(np.bincount(train.item_index, minlength=train.n_items + 1)[1:]).float()

    def score(self, histories: Histories, batch_size: int = 512) -> NDArray[np.float32]:
        """Return how much each user wants each item, shape (users, n_items); only the order within a row counts.

        An empty history is answered with the popularity of the items.

        Raises:
            ModelError: the model is not fitted.
            DataError: an item index is not in 1..n_items.
        """
        graph, train = self._require_fit()
        return self._scores(graph, train, histories, batch_size)

    def _scores(
        self, graph: "_Contract", train: Interactions, histories: Histories, batch_size: int = 512
    ) -> NDArray[np.float32]:
        if histories.items.size and not 1 <= histories.items.min() <= histories.items.max() <= train.n_items:
            raise DataError(f"histories hold item indices outside 1..{train.n_items}; the catalogue is another one")
        scores = np.empty((len(histories), train.n_items), dtype=np.float32)
        device = graph.ranked.device
        with torch.inference_mode():
            for rows in _alike(histories.lengths, batch_size, NUMBERS_AT_ONCE // self._numbers_a_place(train)):
                batch = histories.take(rows).inputs(MAX_HISTORY)
                scores[rows] = graph(*(torch.from_numpy(part).to(device) for part in batch)).cpu().numpy()
        return scores

    def export(self, folder: Path, large: int = LARGE) -> None:
        """Write the graph, ``items.json`` (in the order of the columns) and ``recommender.json``.

        The graph is ``model.onnx``, which gives scores. Above ``large`` items a ``Factorised`` model writes
        ``state.onnx``, the vectors of the items and the answer to an empty history instead, to be searched.

        Raises:
            ModelError: the model is not fitted, or is larger than a graph may be.
        """
        graph, train = self._require_fit()
        size = sum(tensor.nbytes for tensor in graph.state_dict().values())
        if size > MAX_GRAPH_BYTES:
            raise ModelError(
                f"{self.name} holds {size / 1e9:.1f} GB for {train.n_items:,} items, and a graph can hold "
                f"{MAX_GRAPH_BYTES / 1e9:.1f} GB; leave items without sales out of the catalogue, or take another model"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if train.n_items > large and isinstance(graph.model, Factorised):
            write_graph(_State(graph.model).eval(), folder / STATE_GRAPH, output="state")
            ItemIndex(graph.model.vectors().detach().cpu().numpy()).write(folder)
            graph.fallback().write(folder)
        else:
            write_graph(graph, folder / SCORE_GRAPH)
        shown = train.items[list(CatalogueItem.model_fields)]
        write_json(folder / "items.json", shown.to_dict(orient="records"))
        described = {
            "model": self.name,
            "config": self.config.model_dump(mode="json"),
            "max_history": MAX_HISTORY,
            "event_kinds": [kind for kind, _ in Counter(train.events["kind"]).most_common()],
            "cold_items": self.cold_items,
            "repurchase_days": repurchase_days(train),
            "data_fingerprint": train.fingerprint,
        }
        write_json(folder / "recommender.json", described)

    def _require_fit(self) -> "tuple[_Contract, Interactions]":
        if self._fitted is None:
            raise ModelError(f"the recommender {self.name!r} is not fitted; call fit(train) first")
        return self._fitted


class _Contract(nn.Module):
    """The graph of the contract: the model, an answer to an empty history, and last what the model cannot rank.

    What has no kind or lies in the future is no event. That also keeps all inputs in the exported graph, whichever of
    them the model looks at.
    """

    without_history: Tensor
    ranked: Tensor

    def __init__(self, model: nn.Module, without_history: Tensor, ranked: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("without_history", without_history)
        self.register_buffer("ranked", ranked)

    def fallback(self) -> Fallback:
        """Return what the contract adds to the model's own scores."""
        scores, ranked = (tensor.cpu().numpy() for tensor in (self.without_history, self.ranked))
        return Fallback(np.where(ranked, scores, scores.min()).astype(np.float32), ranked)

    def forward(self, *inputs: Tensor) -> Tensor:
        history = _happened(*inputs)
        known = (history > 0).any(dim=1, keepdim=True)
        scores = torch.where(known, self.model(history, *inputs[1:]), self.without_history).float()
        return torch.where(self.ranked, scores, scores.amin(dim=1, keepdim=True))


class _State(nn.Module):
    """The graph of a factorised model's state, by the contract's rule of what is an event."""

    def __init__(self, model: Factorised) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model.state(_happened(*inputs), *inputs[1:])


def _happened(history: Tensor, kinds: Tensor, ages: Tensor) -> Tensor:
    """Return the history with zeros in place of what is no event."""
    return torch.where((history > 0) & (kinds > 0) & (ages >= 0), history, 0)


def _alike(lengths: NDArray[np.int64], batch_size: int, places: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of batches of histories of like length, so that little is padding, with at most ``places``."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + batch_size]
        while len(rows) > 1 and len(rows) * min(int(lengths[rows[-1]]), MAX_HISTORY) > places:
            rows = rows[: len(rows) // 2]
        yield rows
        start += len(rows)
