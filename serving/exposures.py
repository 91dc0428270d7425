"""The log of what was recommended to whom: one JSON line for each item shown, written beside the requests.

A request only puts its rows into a queue. Where the disk cannot keep up, rows are dropped and counted and no request
waits. The file is opened anew for each write, so that it can be moved away at any time; it belongs to one service. A
write that fails is undone, so that every line is whole.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from aftersales.core.errors import ConfigError
from serving.settings import LOG

logger = logging.getLogger("bentoml.aftersales")
# Answers that may wait to be written: at a hundred items each some tens of megabytes.
CAPACITY = 2_000
CLOSE_SECONDS = 10
# A drop is warned of at most so often.
WARNING_SECONDS = 60


class Exposure(NamedTuple):
    """One item shown.

    Attributes:
        request_id: of the answer.
        timestamp: of the answer, seconds since 1970-01-01 UTC.
        user_id: to whom.
        experiment, variant: that decided the answer; null where the user takes part in none.
        position: from 1.
        item_id: what.
        propensity: the chance with which this item was shown at this place.
        model_version: of the recommender.
        rank: from 1, where the item stands in the order without chance.
        candidates: id and score of the best items, best first, of which a variant that explores may show any first; in
            the row of the first place only, as they are those of the whole answer.
    """

    request_id: str
    timestamp: float
    user_id: str
    experiment: str | None
    variant: str | None
    position: int
    item_id: str
    propensity: float
    model_version: str
    rank: int
    candidates: list[tuple[str, float]] | None


class ExposureLog:
    """Adds rows to a file of JSON lines from a thread of its own.

    Args:
        path: the file.
        capacity: answers that may wait.
        count_dropped: told how many rows are dropped, each time.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(
        self, path: Path, capacity: int = CAPACITY, count_dropped: Callable[[int], None] = lambda _: None
    ) -> None:
        check_log(path)
        self.path = path
        self.dropped = 0
        self._count_dropped, self._warned = count_dropped, -float(WARNING_SECONDS)
        self._waiting: queue.Queue[Sequence[Exposure] | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._write, name="exposures", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Exposure]) -> None:
        """Take the rows of one answer, and return at once."""
        try:
            self._waiting.put_nowait(rows)
        except queue.Full:
            self._drop(len(rows), "the disk cannot keep up")

    def close(self) -> None:
        """Write what waits, and stop."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        if self.dropped:
            logger.warning("%d rows of %s were dropped in all", self.dropped, LOG)

    def _write(self) -> None:
        going = True
        while going:
            taken = [self._waiting.get()]
            while not self._waiting.empty() and len(taken) < CAPACITY:
                taken.append(self._waiting.get())
            going = None not in taken
            rows = [row for answer in taken if answer is not None for row in answer]
            text = "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
            try:
                _append(self.path, text.encode())
            except OSError as error:
                self._drop(len(rows), f"the file cannot be written, {error.strerror}")

    def _drop(self, rows: int, why: str) -> None:
        self.dropped += rows
        self._count_dropped(rows)
        if time.monotonic() - self._warned >= WARNING_SECONDS:
            self._warned = time.monotonic()
            logger.warning("rows of %s are dropped, %d by now: %s", LOG, self.dropped, why)


def check_log(path: Path) -> None:
    """Check that rows can be added to a file.

    Raises:
        ConfigError: they cannot.
    """
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"{LOG}: {path} cannot be written ({error.strerror}); name a file in a folder") from None


def _append(path: Path, lines: bytes) -> None:
    """Add whole lines to a file, or, as an error is raised, nothing."""
    with path.open("a+b", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # of a service that was killed: its half line must not take one of ours
                lines = b"\n" + lines
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[stream.write(rest) or 0 :]
        except OSError:
            stream.truncate(end)
            raise
