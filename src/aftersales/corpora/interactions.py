"""Who did what with which item, and when: the schema, the container, and the leave-one-out split by time."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Self, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aftersales.core.errors import DataError, nearest
from aftersales.corpora.histories import Histories, Holdout
from aftersales.runtime.events import EVENT_KINDS, EventKind

ItemKind = Literal["product", "service"]
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)

# Two targets and one event to learn from.
MIN_TARGETS = 3


class Item(NamedTuple):
    """One thing that can be recommended; after-sales services are items too.

    Attributes:
        item_id: unique name.
        title: as shown in the shop, Chinese.
        category: one of the shop's categories.
        price: CNY.
        kind: ``product`` or ``service``.
        product_type: the finer class within the category, such as 手机壳.
        brand: maker.
        group: the same for all variants (size, colour) of one product.
        attributes: further properties, joined by ``|``.
    """

    item_id: str
    title: str = ""
    category: str = ""
    price: float = 0.0
    kind: ItemKind = "product"
    product_type: str = ""
    brand: str = ""
    group: str = ""
    attributes: str = ""


class Event(NamedTuple):
    """One thing a user did with one item.

    Attributes:
        user_id: who.
        item_id: with what; for ``service`` the service.
        kind: one of ``EVENT_KINDS``.
        timestamp: seconds since 1970-01-01 UTC.
        detail: the sentiment of a review, the cause of a complaint or return, the product a service was for.
    """

    user_id: str
    item_id: str
    kind: EventKind
    timestamp: int
    detail: str = ""


@dataclass(frozen=True)
class Interactions:
    """A catalogue and the events on it.

    Attributes:
        items: one row an item with the columns of ``Item``; row r has item index r + 1 in every model.
        events: one row an event with the columns of ``Event``, sorted by user and time; events of equal time
            keep the order in which they were given.
        timed: False where ``timestamp`` is only the place in the user's sequence, as in public sets without times.
    """

    items: pd.DataFrame
    events: pd.DataFrame
    timed: bool = True

    @classmethod
    def of(cls, items: Iterable[Item], events: Iterable[Event]) -> Self:
        """Build from records; see ``of_tables``."""
        return cls.of_tables(
            pd.DataFrame(list(items), columns=list(Item._fields)),
            pd.DataFrame(list(events), columns=list(Event._fields)),
        )

    @classmethod
    def of_tables(cls, items: pd.DataFrame, events: pd.DataFrame, timed: bool = True) -> Self:
        """Build from a row an item and a row an event, with the columns of ``Item`` and ``Event``.

        Raises:
            DataError: no item, a duplicate item id, an unknown kind, an empty user, or an item that is not in
                the catalogue.
        """
        _check(items, events)
        ordered = events.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
        return cls(items, ordered.astype({"timestamp": np.int64}), timed)

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Number of users with at least one event."""
        return int(self.events["user_id"].nunique())

    @cached_property
    def item_index(self) -> NDArray[np.int64]:
        """Item index 1..n_items of every event, shape (events,)."""
        return cast("NDArray[np.int64]", pd.Index(self.items["item_id"]).get_indexer(self.events["item_id"]) + 1)

    @cached_property
    def kind_index(self) -> NDArray[np.int64]:
        """1-based index into ``EVENT_KINDS`` of every event, shape (events,)."""
        return cast("NDArray[np.int64]", pd.Index(EVENT_KINDS).get_indexer(pd.Index(self.events["kind"])) + 1)

    @cached_property
    def is_product(self) -> NDArray[np.bool_]:
        """Which items are products and not services, shape (n_items,)."""
        return (self.items["kind"] == "product").to_numpy(dtype=bool)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every item and event."""
        digest = hashlib.sha256()
        for table in (self.items, self.events):
            for column in table.columns:
                digest.update("\x1f".join([str(column), *map(str, table[column].tolist()), "\x1e"]).encode())
        return digest.hexdigest()

    def only(self, kinds: Sequence[EventKind]) -> "Interactions":
        """Return the same catalogue with the events of ``kinds`` alone."""
        return self.where(self.events["kind"].isin(list(kinds)).to_numpy(dtype=bool))

    def where(self, mask: NDArray[np.bool_]) -> "Interactions":
        """Return the same catalogue with the events at which ``mask``, shape (events,), is true."""
        return replace(self, events=self.events[mask].reset_index(drop=True))

    def histories(self) -> Histories:
        """Return the sequence of all events of every user; ``now`` is the time of the last."""
        rows, users = pd.factorize(self.events["user_id"])
        ends = np.cumsum(np.bincount(rows, minlength=len(users)))
        times = self.events["timestamp"].to_numpy()
        return self.parts(users.tolist(), np.append(0, ends[:-1]), ends, times[ends - 1])

    def parts(
        self, users: list[str], starts: NDArray[np.int64], ends: NDArray[np.int64], now: NDArray[np.int64]
    ) -> Histories:
        """Return histories that are stretches of the table of events.

        Args:
            users: user ids, length n.
            starts: first event of each, shape (n,).
            ends: event after the last of each, shape (n,).
            now: when something is to be recommended to each, as ``timestamp`` says, shape (n,).
        """
        lengths = ends - starts
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Histories(
            users=users,
            items=self.item_index[places],
            offsets=offsets,
            kinds=self.kind_index[places],
            times=self.events["timestamp"].to_numpy()[places],
            now=now,
            timed=self.timed,
        )


@dataclass(frozen=True)
class Split:
    """What to learn from, what to choose on, and what to report.

    Attributes:
        train: what came before the validation targets; everything of users who have none.
        validation: the targets to choose on; in leave-one-out the last target but one.
        test: the targets to report, in leave-one-out the last; its histories include the validation targets.
    """

    train: Interactions
    validation: Holdout
    test: Holdout


def leave_one_out(interactions: Interactions, target: EventKind = "buy") -> Split:
    """Hold out the last two ``target`` events of every user who has at least ``MIN_TARGETS`` of them.

    Nothing of a user at or after the validation target is trained on. Histories hold every event kind that
    ``interactions`` holds: choose with ``Interactions.only`` first.

    Raises:
        DataError: no user has enough events.
    """
    events = interactions.events
    user, names = pd.factorize(events["user_id"])  # numbered by first appearance, hence in order
    positions = np.flatnonzero(events["kind"].to_numpy() == target)
    counts = np.bincount(user[positions], minlength=len(names))
    ends = np.cumsum(counts)
    chosen = np.flatnonzero(counts >= MIN_TARGETS)
    if not len(chosen):
        raise DataError(
            f"no user has {MIN_TARGETS} {target!r} events, which leave-one-out needs; give longer histories, or add "
            f"{target!r} to data.history"
        )
    validation, test = positions[ends[chosen] - 2], positions[ends[chosen] - 1]
    cut = np.full(len(counts), len(events))
    cut[chosen] = validation
    starts = np.searchsorted(user, chosen)
    return Split(
        train=interactions.where(np.arange(len(events)) < cut[user]),
        validation=_holdout(interactions, starts, validation),
        test=_holdout(interactions, starts, test),
    )


def _holdout(interactions: Interactions, starts: NDArray[np.int64], targets: NDArray[np.int64]) -> Holdout:
    users = interactions.events["user_id"].iloc[targets].tolist()
    now = interactions.events["timestamp"].to_numpy()[targets]
    return Holdout(interactions.parts(users, starts, targets, now), interactions.item_index[targets])


def _check(items: pd.DataFrame, events: pd.DataFrame) -> None:
    if items.empty:
        raise DataError("the catalogue has no items")
    if (twice := items["item_id"].duplicated()).any():
        raise DataError(f"item {items['item_id'][twice].iloc[0]!r} is listed twice; item ids must be unique")
    for table, kinds in ((items, ITEM_KINDS), (events, EVENT_KINDS)):
        if (wrong := ~table["kind"].isin(list(kinds))).any():
            kind = str(table["kind"][wrong].iloc[0])
            raise DataError(f"unknown kind {kind!r}{nearest(kind, kinds)}")
    if (events["user_id"].astype(str).str.strip() == "").any():
        raise DataError("an event has an empty user; remove it")
    if (unknown := ~events["item_id"].isin(items["item_id"])).any():
        item = str(events["item_id"][unknown].iloc[0])
        raise DataError(f"item {item!r} has events but is not in the catalogue; add it there")
