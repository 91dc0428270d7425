"""How long does a search for the best items take? The exact index beside brute force, on one thread.

OMP_NUM_THREADS=1 python experiments/recommend/latency.py [items …]

Rows of other sizes stay in latency.json; the table of LATENCY.md is made from it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aftersales.core.errors import AftersalesError, ConfigError, DataError
from aftersales.core.files import write_json
from aftersales.evaluation.results import write_table
from aftersales.runtime.retrieval import ItemIndex
from aftersales.tracking.provenance import provenance

FOLDER = Path(__file__).parent
SIZES, DIMENSIONS = (10_000, 100_000, 1_000_000), (64, 128)
K, QUERIES, CHECKED = 20, 200, 5
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
            found = list(measured(n, d, tags["commit"], tags["machine"]))
            for row in found:
                times = f"{row.median_ms} ms, processor {row.cpu_ms} ms"
                print(f"{row.n:>9,} x {row.d:<3} {row.vectors}, {row.way}: {times}", flush=True)
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
        for way, ask in ways.items():
            wall, processor = timed(ask, queries)
            yield Latency(
                vectors=vectors,
                way=way,
                n=n,
                d=d,
                k=K,
                queries=QUERIES,
                median_ms=round(float(np.median(wall)), 2),
                p99_ms=round(float(np.percentile(wall, 99)), 2),
                cpu_ms=round(float(np.median(processor)), 2),
                build_seconds=None if way == "brute force" else built,
                load=round(load, 1),
                commit=commit,
                machine=machine,
            )


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


def timed(ask: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> NDArray[np.float64]:
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
    try:
        main(tuple(int(size) for size in sys.argv[1:]) or SIZES)
    except AftersalesError as error:
        sys.exit(f"error: {error}")
