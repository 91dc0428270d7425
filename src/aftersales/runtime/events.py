"""What a customer did, as a recommender's graph takes it. Serving and training make the same numbers of it here."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import ConfigError

EventKind = Literal["view", "cart", "buy", "review", "complain", "return", "service"]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)
# Number of each kind in a graph, from 1; 0 is padding.
KIND_NUMBERS: Mapping[str, int] = {kind: number for number, kind in enumerate(EVENT_KINDS, 1)}
DAY = 86_400
# Age in days, and more than any event can have, of one whose time is not known.
UNKNOWN_AGE = 1e6


class Inputs(NamedTuple):
    """The inputs of every recommender's graph; each row holds a user's events, oldest first, right-aligned.

    Attributes:
        history: item indices from 1, 0 for padding, int64 of shape (batch, length).
        kinds: 1-based index into ``EVENT_KINDS``, 0 for padding, int64 of that shape.
        ages: days between the event and the request, 0 for padding, ``UNKNOWN_AGE`` where times are not known,
            float32 of that shape.
    """

    history: NDArray[np.int64]
    kinds: NDArray[np.int64]
    ages: NDArray[np.float32]


class PastEvent(NamedTuple):
    """One event of the history in a request.

    Attributes:
        item_id: with which item.
        kind: what the user did; None: the service was booked, or the product bought.
        days_ago: how long before the request; None where it is not known.
    """

    item_id: str
    kind: EventKind | None = None
    days_ago: float | None = None


def ages_in_days(seconds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return ages in days; an event after the request, by a clock that is wrong, is taken to be just now."""
    return (np.maximum(seconds, 0) / DAY).astype(np.float32)


def in_order(events: Sequence[PastEvent]) -> list[PastEvent]:
    """Return events oldest first; equal times, and events without any, keep their order.

    Raises:
        ConfigError: some events have a time and some have none.
    """
    timed = sum(event.days_ago is not None for event in events)
    if timed not in (0, len(events)):
        raise ConfigError("some events of the history have a time and some have none; give all of them one, or none")
    return sorted(events, key=lambda event: -(event.days_ago or 0.0))
