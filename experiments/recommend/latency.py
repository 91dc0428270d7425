"""How long does a search for the best items take, and a recommendation with it? On one thread, beside brute force.

OMP_NUM_THREADS=1 python experiments/recommend/latency.py [items …]

Rows of other sizes stay in latency.json; the table of LATENCY.md is made from it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aftersales.core.errors import ConfigError, DataError, told_errors
from aftersales.core.files import write_json
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.evaluation.results import write_table
from aftersales.recommenders.base import Recommender as SomeRecommender
from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.recommenders.sequential.network import Ranker, Transformer
from aftersales.runtime.events import PastEvent
from aftersales.runtime.filters import Filters
from aftersales.runtime.manifest import seal
from aftersales.runtime.rankers import best_of
from aftersales.runtime.recommender import Recommender
from aftersales.runtime.retrieval import ItemIndex
from aftersales.tracking.provenance import provenance

FOLDER = Path(__file__).parent
SIZES, DIMENSIONS = (10_000, 100_000, 1_000_000), (64, 128)
K, QUERIES, CHECKED = 20, 200, 5
EVENTS = 20  # of each history
SEED = 1


class Latency(BaseModel):
    """How long one way to search took.

    Attributes:
        vectors: how the items' lengths are distributed.
        way: what was measured.
        n, d, k: items, dimensions, and how many were asked for.
        queries: how many queries were timed, one after another.
        median_ms, p99_ms: of one query, milliseconds.
        cpu_ms: median of the processor's time for a query, milliseconds: without waiting for other processes, though
            not without what they take of caches and memory.
        build_seconds: of the index, once.
        load: processes that wanted a processor in the minute before; above 1 the machine was shared.
        commit: of the code.
        machine: processor and cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vectors: str
    way: str
    n: int
    d: int
    k: int
    queries: int
    median_ms: float
    p99_ms: float
    cpu_ms: float
    build_seconds: float | None = None
    load: float
    commit: str
    machine: str

    @property
    def key(self) -> tuple[int, int, str, str]:
        """What makes a row the same row."""
        return self.n, self.d, self.vectors, self.way


def main(sizes: tuple[int, ...]) -> None:
    """Measure every size, and write latency.json and the table after each."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise ConfigError("OMP_NUM_THREADS is not 1: numpy would use all cores; set it before the command")
    tags = provenance()
    for n in sizes:
        for d in DIMENSIONS:
            found = []
            for one in chain(*(measure(n, d, tags["commit"], tags["machine"]) for measure in (measured, recommended))):
                times = f"{one.median_ms} ms, processor {one.cpu_ms} ms"
                print(f"{one.n:>9,} x {one.d:<3} {one.vectors}, {one.way}: {times}", flush=True)
                found.append(one)
            report(merged(found))


def measured(n: int, d: int, commit: str, machine: str) -> Iterator[Latency]:
    """Yield the rows of one size."""
    rng = np.random.default_rng([SEED, n, d])
    queries = rng.standard_normal((QUERIES, d)).astype(np.float32)
    masks = {"search": None, "search, 90 % allowed": rng.random(n) < 0.9, "search, 1 % allowed": rng.random(n) < 0.01}
    for vectors, items in vector_sets(rng, n, d):
        load = os.getloadavg()[0]
        started = time.perf_counter()
        index = ItemIndex(items)
        built = round(time.perf_counter() - started, 2)
        ways: dict[str, Callable[[NDArray[np.float32]], object]] = {
            way: partial(index.search, k=K, allowed=mask) for way, mask in masks.items()
        }
        if vectors == "one length":  # lengths do not matter to brute force
            ways["brute force"] = partial(brute_force, items)
        for mask in masks.values():
            check(index, queries[:CHECKED], mask)
        of_this = {"vectors": vectors, "n": n, "d": d, "load": round(load, 1), "commit": commit, "machine": machine}
        for way, ask in ways.items():
            yield row(timed(ask, queries), way=way, build_seconds=None if way == "brute force" else built, **of_this)


def recommended(n: int, d: int, commit: str, machine: str) -> Iterator[Latency]:
    """Yield the rows of whole recommendations after a history, as the service makes them: state, filters, reasons."""
    rng = np.random.default_rng([SEED, n, d])
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        export_untrained(n, d, Path(folder))
        started = time.perf_counter()
        model = Recommender.load(Path(folder))
        built = round(time.perf_counter() - started, 2)
    histories = [
        [PastEvent(f"P{item}", "buy", float(EVENTS - place)) for place, item in enumerate(drawn)]
        for drawn in rng.integers(0, n, (QUERIES, EVENTS))
    ]
    filters = {
        "recommend": Filters(),
        "recommend, filtered": Filters(kind="product", exclude_categories=["类目3"], price_max=900, exclude_seen=True),
    }
    of_this = {"vectors": "sequential, random weights", "n": n, "d": d, "load": round(load, 1), "build_seconds": built}
    for way, wanted in filters.items():
        check_recommended(model, histories[:CHECKED], wanted)
        ask = partial(model.recommend, k=K, filters=wanted)
        yield row(timed(ask, histories), way=way, commit=commit, machine=machine, **of_this)


def row(times: NDArray[np.float64], **of_this: Any) -> Latency:
    """Return the row of measured milliseconds, shape (2, queries): of the clock and of the processor."""
    wall, processor = times
    return Latency(
        k=K,
        queries=QUERIES,
        median_ms=round(float(np.median(wall)), 2),
        p99_ms=round(float(np.percentile(wall, 99)), 2),
        cpu_ms=round(float(np.median(processor)), 2),
        **of_this,
    )


class Untrained(SomeRecommender[SequentialConfig]):
    """The sequential model with random weights: answers take as long as those of a trained one."""

    name = "untrained"
    config_type = SequentialConfig
    cold_items = True

    def _fit(self, train: Interactions) -> Ranker:
        matrix = torch.randn(train.n_items + 1, self.config.dimensions)
        matrix[0] = 0
        return Ranker(Transformer(self.config), matrix, self.config.max_length).eval()


def export_untrained(n: int, d: int, folder: Path) -> None:
    """Write the folder of a model of n items whose catalogue has a hundred categories, and prices up to 1,000."""
    torch.manual_seed(SEED)
    items = [
        Item(
            f"P{number}", f"商品 {number}", f"类目{number % 100}", 1 + number % 1000, product_type=f"类型{number % 999}"
        )
        for number in range(n)
    ]
    known = Interactions.of(items, [Event("u", "P0", "buy", 0)])
    Untrained(SequentialConfig(dimensions=d)).fit(known).export(folder, large=0)
    seal(folder, "recommender", "recommendation")


def check_recommended(model: Recommender, histories: list[list[PastEvent]], filters: Filters) -> None:
    """Fail where an answer is not that of sorting all items by their exact score."""
    for history in histories:
        scores = model.scores(model.inputs(history))[0]
        expected = best_of(scores, K, filters.shown(model.items, history)).items
        if [item.item_id for item in model.recommend(history, K, filters).items] != [f"P{item}" for item in expected]:
            raise DataError(f"{len(model.items)} items: the recommendation differs, which is a bug of ours")


def vector_sets(rng: np.random.Generator, n: int, d: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield vectors in random directions: all of one length, when none can be passed over, and of spread lengths."""
    items = rng.standard_normal((n, d)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    yield "one length", items
    items *= rng.lognormal(0, 1, (n, 1)).astype(np.float32)
    yield "lognormal, sigma 1", items


def brute_force(items: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the best items by a 32-bit product of all."""
    scores = items @ query
    best = np.argpartition(scores, -K)[-K:]
    found: NDArray[np.int64] = best[np.lexsort((best, -scores[best]))]
    return found


def check(index: ItemIndex, queries: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
    """Fail where an answer is not that of sorting all items by their exact score."""
    items = np.arange(index.n_items) if mask is None else np.flatnonzero(mask)
    for query in queries:
        scores = index.scores(query, items)
        expected = items[np.lexsort((items, -scores))[:K]]
        if index.search(query, K, mask).items.tolist() != expected.tolist():
            raise DataError(f"{index.n_items} items: the search differs from brute force, which is a bug of ours")


def timed(ask: Callable[[Any], object], queries: Sequence[Any] | NDArray[np.float32]) -> NDArray[np.float64]:
    """Return milliseconds of the clock and of the processor (2, queries), after a few queries to warm up."""
    for query in queries[:CHECKED]:
        ask(query)
    times = np.empty((2, len(queries)))
    for at, query in enumerate(queries):
        started = time.perf_counter(), time.thread_time()
        ask(query)
        times[:, at] = time.perf_counter() - started[0], time.thread_time() - started[1]
    return 1000 * times


def merged(found: list[Latency]) -> list[Latency]:
    """Put rows into latency.json in place of their like, and return all."""
    path = FOLDER / "latency.json"
    try:
        known = TypeAdapter(list[Latency]).validate_json(path.read_bytes()) if path.is_file() else []
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]}); restore it from git") from None
    rows = {row.key: row for row in [*known, *found]}
    ordered = sorted(rows.values(), key=lambda row: (row.n, row.d, row.vectors != "one length"))
    write_json(path, [row.model_dump(exclude_none=True) for row in ordered])
    return ordered


def report(rows: list[Latency]) -> None:
    """Write the table of LATENCY.md."""
    write_table(
        FOLDER / "LATENCY.md",
        rows,
        {
            "items": lambda row: f"{row.n:,}",
            "dimensions": lambda row: row.d,
            "vectors": lambda row: row.vectors,
            "way": lambda row: row.way,
            "median ms": lambda row: f"{row.median_ms:.2f}",
            "p99 ms": lambda row: f"{row.p99_ms:.2f}",
            "processor ms": lambda row: f"{row.cpu_ms:.2f}",
            "build s": lambda row: "" if row.build_seconds is None else f"{row.build_seconds:.1f}",
            "load": lambda row: f"{row.load:.1f}",
        },
    )


if __name__ == "__main__":
    with told_errors():
        main(tuple(int(size) for size in sys.argv[1:]) or SIZES)
