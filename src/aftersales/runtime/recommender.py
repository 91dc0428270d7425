"""A recommender from its exported folder: numpy and ONNX Runtime only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aftersales.core.errors import ConfigError, ModelError
from aftersales.runtime.catalogue import Catalogue, CatalogueItem
from aftersales.runtime.events import KIND_NUMBERS, UNKNOWN_AGE, EventKind, Inputs, PastEvent, in_order
from aftersales.runtime.filters import Filters
from aftersales.runtime.manifest import verify
from aftersales.runtime.rankers import Ranker, open_ranker
from aftersales.runtime.reasons import Reason, Reasons

KIND = "recommender"


class Recommendation(CatalogueItem):
    """One recommended item.

    Attributes:
        score: orders one answer; not comparable between users or models.
        reason: why it is shown.
    """

    score: float
    reason: Reason


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
    """What the runtime needs of ``recommender.json``; older files do not name the kinds, which were these two."""

    max_history: int
    event_kinds: list[EventKind] = Field(default=["buy", "service"], min_length=1)
    repurchase_days: dict[str, float] = {}


@dataclass(frozen=True)
class Recommender:
    """A loaded recommender; safe to share between threads.

    Attributes:
        version: of the model folder.
        items: the catalogue, in the order of the graph's columns.
        max_history: events of a history that are looked at, the last ones.
        event_kinds: kinds of event that the model has learned from, the most frequent first.
        repurchase_days: product type -> median days between purchases, of the types that are bought at an interval.
    """

    version: str
    items: Catalogue
    max_history: int
    event_kinds: Sequence[EventKind]
    repurchase_days: Mapping[str, float]
    _ranker: Ranker

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """Verify and open a model folder.

        Raises:
            ModelError: a file is missing, altered or unreadable, the folder holds another kind of model, or
                graph and catalogue do not fit.
        """
        manifest = verify(folder, KIND)
        try:
            described = _Described.model_validate(json.loads((folder / "recommender.json").read_bytes()))
        except (OSError, ValueError, ValidationError) as error:
            raise ModelError(f"{folder} cannot be read: {error}; export the model again") from None
        items, ranker = Catalogue.read(folder), open_ranker(folder, threads)
        if ranker.n_items != len(items):
            raise ModelError(
                f"{folder}: the graph scores {ranker.n_items} items and items.json lists {len(items)}; "
                "export the model again"
            )
        return cls(
            manifest.version,
            items,
            described.max_history,
            described.event_kinds,
            described.repurchase_days,
            ranker,
        )

    @property
    def index(self) -> Mapping[str, int]:
        """Item id -> item index, from 1."""
        return self.items.numbers

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the scores of all items for some users, shape (batch, n_items)."""
        return self._ranker.scores(inputs)

    def inputs(self, history: Sequence[str | PastEvent]) -> Inputs:
        """Return what the graph takes for one user; see ``recommend``. A history without known items is all padding."""
        events = [
            event
            for event in map(self._with_kind, in_order([_event(one) for one in history]))
            if event.item_id in self.index and event.kind in self.event_kinds
        ][-self.max_history :]
        ages = [UNKNOWN_AGE if event.days_ago is None else max(0.0, event.days_ago) for event in events]
        return Inputs(
            np.array([[self.index[event.item_id] for event in events] or [0]], dtype=np.int64),
            np.array([[KIND_NUMBERS[str(event.kind)] for event in events] or [0]], dtype=np.int64),
            np.array([ages or [0]], dtype=np.float32),
        )

    def _with_kind(self, event: PastEvent) -> PastEvent:
        """Return the event with the kind that is meant where none is given, or else the model's commonest."""
        if event.kind is not None or event.item_id not in self.index:
            return event
        meant: EventKind = "service" if self.items.kind_of(event.item_id) == "service" else "buy"
        return event._replace(kind=meant if meant in self.event_kinds else self.event_kinds[0])

    def recommend(
        self, history: Sequence[str | PastEvent], k: int = 10, filters: Filters | None = None
    ) -> Recommendations:
        """Recommend up to ``k`` items after a history.

        Args:
            history: events, or item ids alone; oldest first, unless all events have times. Unknown items are ignored
                and reported, kinds of event that the model has not learned from are ignored. It may be empty.
            k: how many; more than there are gives all.
            filters: which items may be shown; all unless given.

        Raises:
            ConfigError: ``k`` is below 1, some events have a time and some have none, or, as a ``FilterError``, a
                filter asks for what the catalogue does not have.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; ask for at least 1 item")
        events = [_event(one) for one in history]
        inputs = self.inputs(events)
        found = self._ranker.best(inputs, k, (filters or Filters()).shown(self.items, events))
        known = bool(inputs.history.any())
        in_time = map(self._with_kind, in_order(events))
        pairs = [(event, item) for event in in_time if (item := self.items.item(event.item_id)) is not None]
        reasons = Reasons(pairs, self.repurchase_days, by_popularity=not known)
        return Recommendations(
            items=[
                Recommendation(**item.model_dump(), score=float(score), reason=reasons.of(item))
                for item, score in ((self.items[int(place)], score) for place, score in zip(*found, strict=True))
            ],
            reason="history" if known else "popularity",
            unknown=list(dict.fromkeys(event.item_id for event in events if event.item_id not in self.index)),
            model_version=self.version,
        )


def _event(one: str | PastEvent) -> PastEvent:
    return PastEvent(one) if isinstance(one, str) else one
