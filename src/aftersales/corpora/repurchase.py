"""Which types of product are bought again at an interval, and how long it is."""

import numpy as np

from aftersales.corpora.interactions import Interactions
from aftersales.runtime.events import DAY

# A type counts when so many gaps between purchases were seen, so large a share of its buyers bought it again, and the
# middle half of the gaps is no wider than so many times their median: by chance gaps are far wider.
FEWEST_GAPS, SMALLEST_SHARE, WIDEST = 20, 1 / 3, 1.0


def repurchase_days(interactions: Interactions) -> dict[str, float]:
    """Return product type -> median days until a user buys it again, of the types that are bought at an interval.

    Purchases less than a day apart are one. Nothing is known of events without times, or items without types.
    """
    if not interactions.timed:
        return {}
    types = interactions.items["product_type"].to_numpy()[interactions.item_index - 1]
    bought = (interactions.events["kind"] == "buy").to_numpy() & (types != "")
    events = interactions.events.loc[bought, ["user_id", "timestamp"]].assign(product_type=types[bought])
    by_user = events.groupby(["product_type", "user_id"], sort=False)["timestamp"]
    events["gap"] = by_user.diff() / DAY  # events are sorted by user and time
    gaps = events[events["gap"] >= 1]
    found = {}
    for name, own in gaps.groupby("product_type")["gap"]:
        low, median, high = np.quantile(own, [0.25, 0.5, 0.75])
        buyers = events.loc[events["product_type"] == name, "user_id"].nunique()
        again = gaps.loc[own.index, "user_id"].nunique()
        if len(own) >= FEWEST_GAPS and again / buyers >= SMALLEST_SHARE and high - low <= WIDEST * median:
            found[str(name)] = round(float(median), 1)
    return found
