"""A first place that is drawn by chance, so that a log can tell what another order would have brought.

The first place is drawn from a softmax over the best items; the others follow in their order. So an item stands either
first, or where its rank says, or one place later, and the chance of each is known exactly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# So many of the best items may come first.
CANDIDATES = 10


class Place(NamedTuple):
    """What is shown at one place.

    Attributes:
        rank: of the item by its score, from 0.
        propensity: the chance with which this item is shown at this place, in (0, 1].
    """

    rank: int
    propensity: float


def ordered(scores: Sequence[float], k: int, temperature: float, drawn: float) -> list[Place]:
    """Return what is shown, first place first.

    Args:
        scores: of the best items, falling; at least the ``CANDIDATES`` best where there are as many.
        k: how many places there are at most.
        temperature: of the softmax, in standard deviations of the candidates' scores, so that it means the same for
            every model; 0 keeps the order.
        drawn: a random number, evenly spread over [0, 1).
    """
    places = min(k, len(scores))
    if temperature == 0 or not places:
        return [Place(rank, 1.0) for rank in range(places)]
    chances = _softmax(np.asarray(scores[:CANDIDATES], dtype=np.float64), temperature)
    first = min(int(np.searchsorted(np.cumsum(chances), drawn, side="right")), int(np.flatnonzero(chances)[-1]))
    found = [Place(first, float(chances[first]))]
    for place in range(1, places):
        if place <= first:  # moved down by one that was ranked lower
            found.append(Place(place - 1, float(chances[place:].sum())))
        else:
            found.append(Place(place, min(1.0, float(chances[:place].sum()))))
    return found


def _softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    spread = float(scores.std())
    weights = np.exp((scores - scores.max()) / (temperature * spread)) if spread > 0 else np.ones_like(scores)
    chances: np.ndarray = weights / weights.sum()
    return chances
