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
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aftersales.core.errors import ConfigError, ModelError, nearest
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


@dataclass(frozen=True)
class Recommender:
    """A loaded recommender; safe to share between threads.

    Attributes:
        version: of the model folder.
        items: the catalogue, in the order of the graph's columns.
        max_history: items of a history that are looked at, the last ones.
    """

    version: str
    items: Sequence[CatalogueItem]
    max_history: int
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
        model = cls(manifest.version, items, described.max_history, open_graph(folder / "model.onnx", threads))
        columns = model.scores(np.zeros((1, 1), dtype=np.int64)).shape[1]
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

    def scores(self, history: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run the graph: item indices (batch, length), right-aligned after zeros -> scores (batch, n_items)."""
        (scores,) = self._graph.run(["scores"], {"history": history})
        result: NDArray[np.float32] = scores
        return result

    def recommend(
        self, history: Sequence[str], k: int = 10, exclude_seen: bool = False, kind: str | None = None
    ) -> Recommendations:
        """Recommend up to ``k`` items after a history of item ids, oldest first.

        Args:
            history: item ids; unknown ones are ignored and reported. It may be empty.
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
        known = [self.index[item] for item in history if item in self.index]
        unknown = list(dict.fromkeys(item for item in history if item not in self.index))
        scores = self.scores(np.array([known[-self.max_history :] or [0]], dtype=np.int64))[0]
        shown = np.ones(len(self.items), dtype=bool) if kind is None else self._kinds == kind
        if exclude_seen:
            shown[np.array(known, dtype=np.int64) - 1] = False
        places = np.flatnonzero(shown)
        best = places[np.argsort(-scores[places], kind="stable")[:k]]
        return Recommendations(
            items=[Recommendation(**self.items[i].model_dump(), score=float(scores[i])) for i in best],
            reason="history" if known else "popularity",
            unknown=unknown,
            model_version=self.version,
        )
