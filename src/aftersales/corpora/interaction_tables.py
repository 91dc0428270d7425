"""Interactions from CSV, TSV, JSON lines and Parquet files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aftersales.core.errors import DataError, nearest
from aftersales.corpora.interactions import ITEM_KINDS, Event, Interactions, Item
from aftersales.corpora.tables import read_rows
from aftersales.runtime.events import EVENT_KINDS, EventKind

EVENT_COLUMNS = "data.user_column=…, data.item_column=…, data.time_column=… or data.kind_column=…"
KIND_MAP = "data.kind_map"
# Outside of these years a timestamp is taken for one in other units.
EARLIEST, LATEST = datetime(1980, 1, 1, tzinfo=UTC).timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table of events.

    Attributes:
        user: user id.
        item: item id.
        time: seconds UTC, or a date and time in ISO 8601 (UTC where it names no zone).
        kind: event kind; None where every event is a purchase.
        detail: free detail of the event; may be absent.
        kinds: event kind as written in the file -> one of ``EVENT_KINDS``.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    kind: str | None = "kind"
    detail: str = "detail"
    kinds: Mapping[str, EventKind] = field(default_factory=dict)


def read_interactions(events: Path, items: Path | None = None, columns: Columns | None = None) -> Interactions:
    """Read events and, where there is one, the catalogue.

    Args:
        events: table with a row an event.
        items: table with the column ``item_id`` and any other of ``Item``; without it the catalogue is made of
            the items that have events, and their ids serve as titles.
        columns: names of the columns of ``events``.

    Raises:
        DataError: a missing file or column, an unknown kind, an empty user or item, a bad timestamp, or an
            item that is not in the catalogue; file and line are named.
    """
    catalogue = read_items(items) if items else None
    known = {item.item_id for item in catalogue} if catalogue is not None else None
    found = []
    for line, event in read_events(events, columns or Columns(), EVENT_COLUMNS, KIND_MAP):
        if known is not None and event.item_id not in known:
            where = f"{events} line {line}"
            raise DataError(f"{where}: item {event.item_id!r} is not in {items}; add it there or remove the row")
        found.append(event)
    if catalogue is None:
        catalogue = [Item(name, title=name) for name in dict.fromkeys(event.item_id for event in found)]
    return Interactions.of(catalogue, found)


def read_events(path: Path, columns: Columns, naming: str, mapping: str) -> Iterator[tuple[int, Event]]:
    """Yield (line number, event) of a table with a row an event, in constant memory.

    Args:
        path: the table.
        columns: names of its columns.
        naming: the options by which a user says what a column is called, for errors.
        mapping: likewise what the table calls a kind.

    Raises:
        DataError: as ``read_interactions`` says of events.
    """
    required = (columns.user, columns.item, columns.time, *([columns.kind] if columns.kind else []))
    for line, row in read_rows(path, required, naming):
        yield line, _event(row, columns, mapping, f"{path} line {line}")


def read_items(path: Path) -> list[Item]:
    """Read a catalogue.

    Raises:
        DataError: a missing file or column, an empty or repeated item id, an unknown kind or a bad price.
    """
    found: dict[str, Item] = {}
    for line, row in read_rows(path, ("item_id",), "its header"):
        where = f"{path} line {line}"
        item = _item(row, where)
        if item.item_id in found:
            raise DataError(f"{where}: item {item.item_id!r} is listed before; item ids must be unique")
        found[item.item_id] = item
    return list(found.values())


def _event(row: Mapping[str, Any], columns: Columns, mapping: str, where: str) -> Event:
    written = "buy" if columns.kind is None else _text(row.get(columns.kind))
    kind = columns.kinds.get(written, written)
    if kind not in EVENT_KINDS:
        raise DataError(
            f"{where}: column {columns.kind!r}: unknown event kind {kind!r}{nearest(kind, EVENT_KINDS)}; "
            f"or map it with {mapping}"
        )
    return Event(
        user_id=_required(row, columns.user, where),
        item_id=_required(row, columns.item, where),
        kind=kind,
        timestamp=_seconds(row.get(columns.time), f"{where}: column {columns.time!r}"),
        detail=_text(row.get(columns.detail)),
    )


def _item(row: Mapping[str, Any], where: str) -> Item:
    name = _required(row, "item_id", where)
    kind = _text(row.get("kind")) or "product"
    if kind not in ITEM_KINDS:
        raise DataError(f"{where}: column 'kind': unknown item kind {kind!r}{nearest(kind, ITEM_KINDS)}")
    try:
        price = float(_text(row.get("price")) or 0.0)
    except ValueError:
        raise DataError(f"{where}: column 'price': {row['price']!r} is not a number; write 59 or 59.90") from None
    return Item(
        item_id=name,
        title=_text(row.get("title")) or name,
        category=_text(row.get("category")),
        price=price,
        kind=kind,
        product_type=_text(row.get("product_type")),
        brand=_text(row.get("brand")),
        group=_text(row.get("group")),
        attributes=_text(row.get("attributes")),
    )


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def _required(row: Mapping[str, Any], column: str, where: str) -> str:
    if text := _text(row.get(column)):
        return text
    raise DataError(f"{where}: column {column!r} is empty; fill it or remove the row")


def _seconds(value: object, where: str) -> int:
    try:
        seconds = _parse_time(value)
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: {value!r} is not a time; write seconds UTC (1735689600) or ISO 8601 (2025-01-01T08:00:00+08:00)"
        ) from None
    if EARLIEST <= seconds < LATEST:
        return int(seconds)
    hint = "; it looks like milliseconds: divide by 1000" if EARLIEST <= seconds / 1000 < LATEST else ""
    raise DataError(f"{where}: {value!r} is not in the years 1980 to 2099 as seconds UTC{hint}")


def _parse_time(value: object) -> float:
    if isinstance(value, datetime):
        moment = value
    else:
        text = _text(value)
        try:
            return float(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
