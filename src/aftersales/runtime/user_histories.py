"""What users did, in one SQLite file that ``aftersales histories build`` writes and the service only reads.

A file is opened anew for each question, which takes a fraction of a millisecond: a new build, moved into the place of
the old one, is seen by the next request, and threads share nothing.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from aftersales.core.errors import ModelError
from aftersales.runtime.events import DAY, EventKind, PastEvent
from aftersales.runtime.filters import NOT_BOUGHT

# Written into the header of the file, so that another database is not taken for one of ours.
APPLICATION, FORMAT = 0x41534148, 1
# A user's events lie together and in order of time; those of equal times in the order of the file they came from.
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE events (
  user_id TEXT NOT NULL, timestamp INTEGER NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL,
  place INTEGER NOT NULL, detail TEXT NOT NULL,
  PRIMARY KEY (user_id, timestamp, item_id, kind)
) WITHOUT ROWID
"""
# Of each kind the last: thousands of views must not push out the few purchases that a model may know alone.
_LATEST = """
SELECT item_id, kind, timestamp FROM (
  SELECT *, row_number() OVER (PARTITION BY kind ORDER BY timestamp DESC, place DESC) AS nth
  FROM events WHERE user_id = ? AND timestamp <= ?
) WHERE nth <= ? ORDER BY timestamp, place
"""
_BOUGHT = """
SELECT DISTINCT item_id FROM events WHERE user_id = ? AND timestamp <= ? AND kind NOT IN (?, ?)
"""
_KNOWN = "SELECT 1 FROM events WHERE user_id = ? LIMIT 1"
_KINDS = frozenset(get_args(EventKind))


@dataclass(frozen=True)
class UserHistories:
    """A file of histories; safe to share between threads."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check that ``path`` is a file of histories.

        Raises:
            ModelError: it is missing, damaged, or something else.
        """
        histories = cls(path)
        histories.events("", 0.0, 1)
        return histories

    def events(self, user_id: str, now: float, most: int) -> list[PastEvent] | None:
        """Return the last events of each kind of a user, oldest first, or None where the file does not know the user.

        What is later than ``now`` has not happened yet and is left out.

        Args:
            user_id: who.
            now: the moment of the request, in seconds since 1970-01-01 UTC.
            most: how many events of each kind at most.

        Raises:
            ModelError: the file is missing, damaged, or something else.
        """
        with self._opened() as store:
            rows = store.execute(_LATEST, (user_id, int(now), most)).fetchall()
            if not rows and store.execute(_KNOWN, (user_id,)).fetchone() is None:
                return None
        return [PastEvent(item, kind, (now - at) / DAY) for item, kind, at in rows if kind in _KINDS]

    def bought(self, user_id: str, now: float) -> list[str]:
        """Return every item that a user had by ``now``, however long ago: all but what was only looked at.

        Raises:
            ModelError: the file is missing, damaged, or something else.
        """
        with self._opened() as store:
            return [item for (item,) in store.execute(_BOUGHT, (user_id, int(now), *NOT_BOUGHT))]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one question."""
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as store:
                self._check(store)
                yield store
        except sqlite3.Error as error:
            raise ModelError(f"{self.path} cannot be read as histories ({error}); {_WAY_OUT}") from None

    def _check(self, store: sqlite3.Connection) -> None:
        (application,), (version,) = (
            store.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if (application, version) != (APPLICATION, FORMAT):
            raise ModelError(f"{self.path} is no file of histories of this version; {_WAY_OUT}")


_WAY_OUT = "write it with `aftersales histories build EVENTS OUT.sqlite`"


def joined(stored: Sequence[PastEvent], given: Sequence[PastEvent]) -> list[PastEvent]:
    """Return what the store and the request say of a user, each event once.

    Events of the request without a time come last, as of now; those with one find their place by it, after stored ones
    of the same time. The same item, kind and time is the same event, and counts once.
    """
    timed = any(event.days_ago is not None for event in given)
    if stored and not timed:
        given = [event._replace(days_ago=0.0) for event in given]
    elif not timed:
        return list(given)  # ids alone: the same one twice was bought twice
    found: dict[tuple[str, str | None, float | None], PastEvent] = {}
    for number, event in enumerate([*stored, *given]):
        told_apart = event.days_ago if timed or number < len(stored) else -1.0 - number
        # A request may leave unsaid that an item was bought or a service booked.
        kind = None if event.kind in ("buy", "service") else event.kind
        found.setdefault((event.item_id, kind, told_apart), event)
    return list(found.values())
