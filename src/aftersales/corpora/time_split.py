"""The global split by time: one moment for all users, after which nothing is learned from.

Leave-one-out trains on events of some users that lie after the targets of others; this split does not (Meng et al.
2020, "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", arXiv 2007.13237).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aftersales.core.errors import DataError
from aftersales.corpora.histories import Holdout
from aftersales.corpora.interactions import Interactions, Split
from aftersales.runtime.events import DAY, EventKind


def global_time_split(
    interactions: Interactions, validation_days: float, test_days: float, target: EventKind = "buy"
) -> Split:
    """Hold out the last days: what each user has ``target`` events with in them, each item once.

    Args:
        interactions: all events; histories hold every kind of event there is.
        validation_days: how long the time of the validation targets is, before that of the test targets.
        test_days: how long the time of the test targets is, up to the last event.
        target: the kind of event to predict.

    Returns:
        A split in which users may have several targets, and none before their first event: cold users.

    Raises:
        DataError: the events have no times, or one of the three parts has no events.
    """
    if not interactions.timed:
        raise DataError("these events have an order but no times, which a split by time needs; use leave_one_out")
    times = interactions.events["timestamp"].to_numpy()
    end = int(times.max()) + 1
    test_from = end - test_days * DAY
    validation_from = test_from - validation_days * DAY
    if not (times < validation_from).any():
        raise DataError(
            f"no event lies before the last {validation_days + test_days:g} days; hold out fewer of the "
            f"{(end - times.min()) / DAY:.0f} days there are"
        )
    return Split(
        train=interactions.where(times < validation_from),
        validation=_window(interactions, validation_from, test_from, target),
        test=_window(interactions, test_from, end, target),
    )


def _window(interactions: Interactions, start: float, stop: float, target: EventKind) -> Holdout:
    """Return the distinct target items of each user between two moments, and all events before the first moment."""
    events, times = interactions.events, interactions.events["timestamp"].to_numpy()
    user, names = pd.factorize(events["user_id"])  # numbered by first appearance, hence in order
    wanted = (events["kind"].to_numpy() == target) & (times >= start) & (times < stop)
    if not wanted.any():
        raise DataError(f"no {target!r} event lies in one of the parts held out; hold out more days")
    pairs = pd.DataFrame({"user": user[wanted], "item": interactions.item_index[wanted]}).drop_duplicates()
    chosen, first = np.unique(user[wanted], return_index=True)
    starts = np.searchsorted(user, chosen)
    before = np.bincount(user[times < start], minlength=len(names))[chosen]
    histories = interactions.parts(names[chosen].tolist(), starts, starts + before, times[wanted][first])
    return Holdout(histories, pairs["item"].to_numpy(), _offsets(pairs["user"].to_numpy(), chosen, len(names)))


def _offsets(users: NDArray[np.int64], chosen: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return where each chosen user's entries begin and end, shape (chosen + 1,)."""
    return np.append(0, np.cumsum(np.bincount(users, minlength=n)[chosen])).astype(np.int64)
