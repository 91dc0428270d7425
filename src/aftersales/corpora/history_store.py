"""Write the file of user histories that the service reads, from a table of events."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from aftersales.core.errors import DataError
from aftersales.core.files import unwritable
from aftersales.corpora.interaction_tables import Columns, read_events
from aftersales.corpora.interactions import Event
from aftersales.runtime.user_histories import SCHEMA

NAMING = "--user-column, --item-column, --time-column or --kind-column"
MAPPING = "--kind WRITTEN=KIND"
ENDINGS = (".sqlite", ".sqlite3", ".db")
_INSERT = "INSERT OR IGNORE INTO events (user_id, timestamp, item_id, kind, place, detail) VALUES (?, ?, ?, ?, ?, ?)"
_CHUNK = 10_000


@dataclass(frozen=True)
class Built:
    """What a build wrote and left out.

    Attributes:
        events, users: that are in the file.
        duplicates: rows of a user, item, kind and time that had been read before.
        future: rows later than the moment of the build.
    """

    events: int
    users: int
    duplicates: int
    future: int


def build_histories(source: Path, target: Path, columns: Columns, now: float) -> Built:
    """Write ``target``, whole or not at all; whoever reads an older one goes on reading that.

    Events later than ``now`` come from a clock that is wrong, or have not happened: they are left out and counted, and
    a later build has them. Events of equal times keep the order of the table.

    Args:
        source: CSV, TSV, JSON lines or Parquet, a row an event, in any order.
        target: the SQLite file.
        columns: names of the columns of ``source``.
        now: the moment of the build, in seconds since 1970-01-01 UTC.

    Raises:
        DataError: ``target`` has another ending or is ``source``, a row is wrong (see ``read_interactions``), or no
            event is left.
        StorageError: ``target`` cannot be written.
    """
    if target.suffix not in ENDINGS or target.resolve() == source.resolve():
        raise DataError(f"{target} is no place for histories; name a file that ends in {ENDINGS[0]}")
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        built = _written(aside, source, columns, now)
        if not built.events:
            raise DataError(f"{source}: every event is later than now; give timestamps in seconds UTC")
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(target)
    except UnicodeEncodeError:
        raise DataError(f"{source}: an id or detail holds half a character (a lone surrogate); mend it") from None
    except (sqlite3.OperationalError, OSError) as error:
        raise unwritable(target, error) from None
    finally:
        with suppress(OSError):  # below a file there is nothing to remove
            aside.unlink(missing_ok=True)
    return built


def _written(path: Path, source: Path, columns: Columns, now: float) -> Built:
    future = read = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal future, read
        for place, (_, event) in enumerate(read_events(source, columns, NAMING, MAPPING)):
            if event.timestamp > now:
                future += 1
            else:
                read += 1
                yield _row(place, event)

    waiting = rows()
    chunk = list(islice(waiting, _CHUNK))  # before anything is written: a wrong file or column ends here
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}; BEGIN")
        while chunk:
            store.executemany(_INSERT, chunk)
            chunk = list(islice(waiting, _CHUNK))
        store.execute("COMMIT")
        ((events, users),) = store.execute("SELECT count(*), count(DISTINCT user_id) FROM events").fetchall()
    return Built(events, users, duplicates=read - events, future=future)


def _row(place: int, event: Event) -> tuple[Any, ...]:
    return event.user_id, event.timestamp, event.item_id, event.kind, place, event.detail
