"""From a user's events to the best items: by a graph that scores all items, or, where these are very many, by a graph
that gives the user's state and a search for the items whose vectors have the largest products with it.

Both give the same items in the same order, except where scores lie closer together than 32-bit arithmetic tells apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aftersales.core.errors import ModelError
from aftersales.runtime.events import Inputs
from aftersales.runtime.graph import open_graph
from aftersales.runtime.retrieval import Found, ItemIndex

# Items of which one should score lower than the best do, which shows that the best are not at the bottom.
_WITNESSES = 64
SCORE_GRAPH, STATE_GRAPH, FALLBACK = "model.onnx", "state.onnx", "fallback.safetensors"


class Ranker(Protocol):
    """What a recommender ranks its items by; safe to share between threads."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the scores of all items for some users, shape (batch, n_items)."""

    def best(self, inputs: Inputs, k: int, shown: NDArray[np.bool_] | None) -> Found:
        """Return the ``k`` best of the items ``shown``, of equal ones the first; all of them where they are fewer.

        Args:
            inputs: of one user.
            k: how many.
            shown: bool of shape (n_items,); None for all items.
        """


def open_ranker(folder: Path, threads: int) -> Ranker:
    """Open the graph of a model folder and what belongs to it.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others.
    """
    return StateRanker.open(folder, threads) if (folder / STATE_GRAPH).is_file() else ScoreRanker.open(folder, threads)


@dataclass(frozen=True)
class ScoreRanker:
    """Scores every item by one graph and sorts: simplest, and fastest for thousands of items."""

    n_items: int
    _graph: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, threads: int) -> Self:
        """Open ``model.onnx``."""
        graph = _graph(folder, SCORE_GRAPH, threads)
        return cls(_run(graph, "scores", _NOTHING).shape[1], graph)

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """See ``Ranker``."""
        return _run(self._graph, "scores", inputs)

    def best(self, inputs: Inputs, k: int, shown: NDArray[np.bool_] | None) -> Found:
        """See ``Ranker``."""
        return best_of(self.scores(inputs)[0], k, shown)


@dataclass(frozen=True)
class Fallback:
    """What a state and item vectors do not say.

    Attributes:
        without_history: scores for an empty history, float32 of shape (n_items,).
        ranked: items that the model can rank, bool of shape (n_items,); the others come last.
    """

    without_history: NDArray[np.float32]
    ranked: NDArray[np.bool_]

    @cached_property
    def all_ranked(self) -> bool:
        """Whether there is no item that cannot be ranked."""
        return bool(self.ranked.all())

    def write(self, folder: Path) -> None:
        """Write into a model folder."""
        save_file({"without_history": self.without_history, "ranked": self.ranked}, folder / FALLBACK)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            ModelError: the file is missing or damaged.
        """
        try:
            tensors = load_file(folder / FALLBACK)
            return cls(tensors["without_history"].astype(np.float32), tensors["ranked"].astype(np.bool_))
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder / FALLBACK} cannot be read ({error}); export the model again") from None

    def with_last(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (n_items,) in which the items that cannot be ranked are as low as the lowest."""
        return np.where(self.ranked, scores, scores.min())


@dataclass(frozen=True)
class StateRanker:
    """Scores items by the products of their vectors with a state, and finds the best without scoring all."""

    _graph: onnxruntime.InferenceSession
    _index: ItemIndex
    _fallback: Fallback

    @classmethod
    def open(cls, folder: Path, threads: int) -> Self:
        """Open ``state.onnx``, the item vectors and the fallback."""
        ranker = cls(_graph(folder, STATE_GRAPH, threads), ItemIndex.read(folder), Fallback.read(folder))
        state = _run(ranker._graph, "state", _NOTHING)
        sizes: Sequence[int] = [ranker.n_items, *map(len, (ranker._fallback.without_history, ranker._fallback.ranked))]
        if state.shape != (1, ranker._index.dimensions) or len(set(sizes)) > 1:
            raise ModelError(f"{folder}: state, item vectors and fallback do not fit; export the model again")
        return ranker

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self._index.n_items)

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """See ``Ranker``; this takes as long as there are items, and is there to check and to measure by."""
        known = np.any((inputs.history > 0) & (inputs.kinds > 0) & (inputs.ages >= 0), axis=1)
        states = self._states(inputs)
        return np.stack(
            [
                self._fallback.with_last(self._index.scores(state)) if any_known else self._fallback.without_history
                for state, any_known in zip(states, known.tolist(), strict=True)
            ]
        )

    def best(self, inputs: Inputs, k: int, shown: NDArray[np.bool_] | None) -> Found:
        """See ``Ranker``."""
        if not inputs.history.any():
            return best_of(self._fallback.without_history, k, shown)
        (state,) = self._states(inputs)
        if self._fallback.all_ranked:
            return self._index.search(state, k, shown)
        ranked = self._fallback.ranked
        found = self._index.search(state, k, ranked if shown is None else ranked & shown)
        some = np.linspace(0, self.n_items - 1, _WITNESSES).astype(np.int64)
        if len(found.items) == k and self._index.scores(state, some).min() < found.scores[-1]:
            return found
        # Items that cannot be ranked may be among the best: few may be shown, or very many score equally low.
        return best_of(self._fallback.with_last(self._index.scores(state)), k, shown)

    def _states(self, inputs: Inputs) -> NDArray[np.float32]:
        return _run(self._graph, "state", inputs)


def best_of(scores: NDArray[np.float32], k: int, shown: NDArray[np.bool_] | None) -> Found:
    """Return the ``k`` highest of the scores (n_items,) of items ``shown``, of equal ones the first."""
    items = np.arange(len(scores)) if shown is None else np.flatnonzero(shown)
    own = scores[items]
    if len(own) > k:
        good = own >= np.partition(own, -k)[-k]
        items, own = items[good], own[good]
    best = np.lexsort((items, -own))[:k]
    return Found(items[best], own[best])


# The inputs of a user without history.
_NOTHING = Inputs(**{name: np.zeros((1, 1), np.float32 if name == "ages" else np.int64) for name in Inputs._fields})


def _graph(folder: Path, name: str, threads: int) -> onnxruntime.InferenceSession:
    graph = open_graph(folder / name, threads)
    if _taken(graph) not in (set(Inputs._fields), {"history"}):  # older models know of no kinds and times
        raise ModelError(f"{folder}: the graph does not take {', '.join(Inputs._fields)}; export the model again")
    return graph


def _taken(graph: onnxruntime.InferenceSession) -> set[str]:
    return {one.name for one in graph.get_inputs()}


def _run(graph: onnxruntime.InferenceSession, output: str, inputs: Inputs) -> NDArray[np.float32]:
    """Return an output of a graph, given those of the inputs that it takes."""
    taken = _taken(graph)
    result: NDArray[np.float32]
    (result,) = graph.run([output], {name: value for name, value in inputs._asdict().items() if name in taken})
    return result
