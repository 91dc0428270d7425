"""A recommender from its exported folder: numpy and ONNX Runtime only."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aftersales.core.errors import ConfigError, ModelError, nearest
from aftersales.runtime.events import KIND_NUMBERS, EventKind, Inputs, PastEvent, in_order
from aftersales.runtime.graph import open_graph
from aftersales.runtime.manifest import verify

KIND = "recommender"


class CatalogueItem(BaseModel):
    """What the folder says of an item."""

    model_config = ConfigDict(frozen=True)

    item_id: str
    title: str
    category: str
    kind: str


class Recommendation(CatalogueItem):
    """One recommended item; scores order one answer and are not comparable between users or models."""

    score: float


class Recommendations(BaseModel):
    """One answer.

    Attributes:
        items: best first.
        reason: ``history``, or ``popularity`` where nothing of the history is known to the model.
        unknown: item ids of the history that the model does not know, which were ignored.
        model_version: of the folder.
    """

    model_config = ConfigDict(protected_namespaces=())

    items: list[Recommendation]
    reason: Literal["history", "popularity"]
    unknown: list[str]
    model_version: str


class _Described(BaseModel):
    """What the runtime needs of ``recommender.json``."""

    max_history: int
    event_kinds: list[EventKind] = Field(min_length=1)


@dataclass(frozen=True)
class Recommender:
    """A loaded recommender; safe to share between threads.

    Attributes:
        version: of the model folder.
        items: the catalogue, in the order of the graph's columns.
        max_history: events of a history that are looked at, the last ones.
        event_kinds: kinds of event that the model has learned from, the most frequent first.
    """

    version: str
    items: Sequence[CatalogueItem]
    max_history: int
    event_kinds: Sequence[EventKind]
    _graph: onnxruntime.InferenceSession

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """Verify and open a model folder.

        Raises:
            ModelError: a file is missing, altered or unreadable, the folder holds another kind of model, or
                graph and catalogue do not fit.
        """
        manifest = verify(folder, KIND)
        try:
            items = TypeAdapter(list[CatalogueItem]).validate_json((folder / "items.json").read_bytes())
            described = _Described.model_validate(json.loads((folder / "recommender.json").read_bytes()))
        except (OSError, ValueError, ValidationError) as error:
            raise ModelError(f"{folder} cannot be read: {error}; export the model again") from None
        graph = open_graph(folder / "model.onnx", threads)
        if {one.name for one in graph.get_inputs()} != set(Inputs._fields):
            raise ModelError(f"{folder}: the graph does not take {', '.join(Inputs._fields)}; export the model again")
        model = cls(manifest.version, items, described.max_history, described.event_kinds, graph)
        columns = model.scores(model.inputs([])).shape[1]
        if columns != len(items):
            raise ModelError(
                f"{folder}: the graph scores {columns} items and items.json lists {len(items)}; export the model again"
            )
        return model

    @cached_property
    def index(self) -> dict[str, int]:
        """Item id -> item index, from 1."""
        return {item.item_id: number for number, item in enumerate(self.items, 1)}

    @cached_property
    def _kinds(self) -> NDArray[np.str_]:
        return np.array([item.kind for item in self.items])

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """Run the graph: the events of some users -> scores (batch, n_items)."""
        (scores,) = self._graph.run(["scores"], inputs._asdict())
        result: NDArray[np.float32] = scores
        return result

    def inputs(self, history: Sequence[str | PastEvent]) -> Inputs:
        """Return what the graph takes for one user; see ``recommend``. A history without known items is all padding."""
        events = [
            event
            for event in map(self._with_kind, in_order([_event(one) for one in history]))
            if event.item_id in self.index and event.kind in self.event_kinds
        ][-self.max_history :]
        ages = [max(0.0, event.days_ago or 0.0) for event in events]
        return Inputs(
            np.array([[self.index[event.item_id] for event in events] or [0]], dtype=np.int64),
            np.array([[KIND_NUMBERS[str(event.kind)] for event in events] or [0]], dtype=np.int64),
            np.array([ages or [0]], dtype=np.float32),
        )

    def _with_kind(self, event: PastEvent) -> PastEvent:
        """Return the event with the kind that is meant where none is given, or else the model's commonest."""
        if event.kind is not None or event.item_id not in self.index:
            return event
        meant: EventKind = "service" if self.items[self.index[event.item_id] - 1].kind == "service" else "buy"
        return event._replace(kind=meant if meant in self.event_kinds else self.event_kinds[0])

    def recommend(
        self, history: Sequence[str | PastEvent], k: int = 10, exclude_seen: bool = False, kind: str | None = None
    ) -> Recommendations:
        """Recommend up to ``k`` items after a history.

        Args:
            history: events, or item ids alone; oldest first, unless all events have times. Unknown items are ignored
                and reported, kinds of event that the model has not learned from are ignored. It may be empty.
            k: how many; more than there are gives all.
            exclude_seen: leave out the items of the history. Consumables are bought again, so they stay unless asked.
            kind: ``product``, ``service`` or None for both.

        Raises:
            ConfigError: ``k`` is below 1, or no item is of ``kind``.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; ask for at least 1 item")
        if kind is not None and kind not in self._kinds:
            raise ConfigError(f"no item is of kind {kind!r}{nearest(kind, set(self._kinds.tolist()))}")
        ids = list(dict.fromkeys(_event(one).item_id for one in history))
        inputs = self.inputs(history)
        scores = self.scores(inputs)[0]
        shown = np.ones(len(self.items), dtype=bool) if kind is None else self._kinds == kind
        if exclude_seen:
            shown[[self.index[item] - 1 for item in ids if item in self.index]] = False
        places = np.flatnonzero(shown)
        best = places[np.argsort(-scores[places], kind="stable")[:k]]
        return Recommendations(
            items=[Recommendation(**self.items[i].model_dump(), score=float(scores[i])) for i in best],
            reason="history" if inputs.history.any() else "popularity",
            unknown=[item for item in ids if item not in self.index],
            model_version=self.version,
        )


def _event(one: str | PastEvent) -> PastEvent:
    return PastEvent(one) if isinstance(one, str) else one
