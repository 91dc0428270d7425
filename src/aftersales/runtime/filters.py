"""Which items an answer may show. Filters are applied before ranking, so that they never shorten a list by chance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import ConfigError
from aftersales.runtime.catalogue import Catalogue
from aftersales.runtime.events import PastEvent

# What leaves an item unbought; every other kind of event is with an item that the user had.
NOT_BOUGHT = ("view", "cart")
_MOST_NAMES = 12


class FilterError(ConfigError):
    """A filter asks for what the catalogue does not have; the message does not repeat what was asked."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


@dataclass(frozen=True, eq=False)
class Filters:
    """What may be shown; each condition narrows what the others leave.

    Attributes:
        kind: only products, only services, or (None) both.
        categories: only these; None for all.
        exclude_categories: none of these.
        exclude_items: none of these items; ids that the catalogue does not list are ignored.
        exclude_seen: nothing that the user has bought or booked, returned and exchanged items included; what was only
            viewed or put into the cart may be shown. Consumables are bought again, so that this is off by default.
        price_max: CNY, nothing dearer, and no product of unknown price.
        among: only these, bool of shape (n_items,): what the shop still sells.
    """

    kind: str | None = None
    categories: Sequence[str] | None = None
    exclude_categories: Sequence[str] = ()
    exclude_items: Sequence[str] = ()
    exclude_seen: bool = False
    price_max: float | None = None
    among: NDArray[np.bool_] | None = None

    def shown(self, catalogue: Catalogue, history: Iterable[PastEvent]) -> NDArray[np.bool_] | None:
        """Return which items may be shown, bool of shape (n_items,); None for all.

        Raises:
            FilterError: a category or kind that no item has, or a price where no item has one.
        """
        wanted = [] if self.among is None else [self.among]
        if self.kind is not None:
            _check("kind", [self.kind], catalogue.kinds.words, "item of this kind")
            wanted.append(catalogue.of_kind[self.kind])
        known = catalogue.categories.words
        if self.categories is not None:
            _check("categories", self.categories, known, "such category")
            wanted.append(catalogue.categories.is_any(self.categories))
        if self.exclude_categories:
            _check("exclude_categories", self.exclude_categories, known, "such category")
            wanted.append(~catalogue.categories.is_any(self.exclude_categories))
        if self.price_max is not None:
            wanted.append(_affordable(catalogue, self.price_max))
        hidden = list(self.exclude_items)
        if self.exclude_seen:
            hidden += [event.item_id for event in history if event.kind not in NOT_BOUGHT]
        if hidden:
            wanted.append(~catalogue.mask(hidden))
        return np.logical_and.reduce(wanted) if wanted else None


def _affordable(catalogue: Catalogue, most: float) -> NDArray[np.bool_]:
    if not catalogue.priced.any():
        raise FilterError("price_max", "the catalogue has no prices; leave it out, or train with a catalogue of prices")
    return catalogue.priced & (catalogue.prices <= most)


def _check(field: str, names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Refuse the first name that is not known, with the nearest one that is."""
    for place, name in enumerate(names):
        if name not in known:
            where = field if field == "kind" else f"{field}[{place}]"
            raise FilterError(where, f"the catalogue has no {what}{_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.3)
    if close:
        return f"; did you mean {close[0]!r}?"
    named = [word for word in known if word][:_MOST_NAMES]
    return f"; known: {', '.join(named)}{', …' if len(known) > _MOST_NAMES else ''}" if named else ""
