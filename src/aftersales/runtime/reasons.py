"""Why an item is shown, in the customer's words and from the customer's own history: the first rule that fits.

| code | fits | text |
|---|---|---|
| `exchange` | an item of the same group or type was returned of late | 因为你退换过「…」 |
| `complaint` | a service, after a complaint of late | 因为你反馈过「…」的问题 |
| `replenish` | a type that is bought at an interval, and is due | 你 N 天前买过「…」，该补货了 |
| `same_type`, `same_category`, `same_brand` | there is such an item in the history | 因为你买过「…」 |
| `history` | the history led to it, by no rule above | 根据你最近的记录推荐 |
| `popularity` | nothing of the history is known to the model | 大家都在买 |

A reason names a relation between the item and the history that is true; it does not say that the model's score came
from it. A service after a return is one for the returned item; of a return and a complaint the later counts, and only
while it is recent, as a catalogue does not say which products a service is for. Events without times count as recent.
Rules look at the events of one user and name only items of these: nothing of other users can appear.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel

from aftersales.runtime.catalogue import CatalogueItem
from aftersales.runtime.events import PastEvent

Pair = tuple[PastEvent, CatalogueItem]
Code = Literal[
    "exchange", "complaint", "replenish", "same_type", "same_category", "same_brand", "history", "popularity"
]
RELATIONS: Mapping[Code, str] = {"same_type": "product_type", "same_category": "category", "same_brand": "brand"}
# An item is due when this share of the usual interval has passed.
DUE = 0.75
# After so many intervals the user has changed their habit, and is told no more that it is time.
OVERDUE = 4.0
# So long a return or complaint explains what comes next.
TROUBLE_DAYS = 90.0
MOST_CHARACTERS = 16
_VERBS = {"service": "因为你预约过「{}」", "view": "因为你看过「{}」", "cart": "因为你把「{}」加入过购物车"}
_BOUGHT = "因为你买过「{}」"


class Reason(BaseModel):
    """Why one item is shown: a code for machines and a text for the customer."""

    code: Code
    text: str


class Reasons:
    """The reasons for one answer.

    Args:
        events: of one user with their items, oldest first; every event has a kind.
        repurchase_days: product type -> usual days between purchases, of the types that are bought at an interval.
        by_popularity: the model knew nothing of the history.
    """

    def __init__(
        self,
        events: Sequence[Pair],
        repurchase_days: Mapping[str, float],
        by_popularity: bool,
    ) -> None:
        self._events = [] if by_popularity else list(reversed(events))
        self._repurchase_days = repurchase_days
        self._otherwise: Code = "popularity" if by_popularity else "history"
        recent = [pair for pair in self._events if (pair[0].days_ago or 0.0) <= TROUBLE_DAYS]
        self._returned = _latest(recent, "return", "group") | _latest(recent, "return", "product_type")
        self._bought = _latest(self._events, "buy", "product_type")
        self._trouble = next((pair for pair in recent if pair[0].kind in ("return", "complain")), None)
        self._related = {code: self._related_by(field) for code, field in RELATIONS.items()}

    def of(self, item: CatalogueItem) -> Reason:
        """Return the reason for one item."""
        found = self._of_trouble(item) or self._of_interval(item) or self._of_relation(item)
        if found:
            return found
        if self._otherwise == "history":
            return Reason(code="history", text="根据你最近的记录推荐")
        return Reason(code="popularity", text="大家都在用" if item.kind == "service" else "大家都在买")

    def _related_by(self, field: str) -> dict[str, Pair]:
        """Return word -> the latest event with an item that bears it; what was only looked at comes second."""
        found: dict[str, Pair] = {}
        for looked in (False, True):
            for event, item in self._events:
                if (event.kind in ("view", "cart")) == looked and (word := getattr(item, field)):
                    found.setdefault(word, (event, item))
        return found

    def _of_trouble(self, item: CatalogueItem) -> Reason | None:
        if item.kind == "service":
            if self._trouble is None:
                return None
            event, cause = self._trouble
            if event.kind == "complain":
                return Reason(code="complaint", text=f"因为你反馈过「{shortened(cause)}」的问题")
            return Reason(code="exchange", text=f"因为你退换过「{shortened(cause)}」")
        for field in ("group", "product_type"):
            if returned := self._returned.get((field, getattr(item, field))):
                return Reason(code="exchange", text=f"因为你退换过「{shortened(returned[1])}」")
        return None

    def _of_interval(self, item: CatalogueItem) -> Reason | None:
        interval = self._repurchase_days.get(item.product_type)
        bought = self._bought.get(("product_type", item.product_type))
        if interval is None or bought is None or bought[0].days_ago is None:
            return None
        days = int(bought[0].days_ago)
        if days < 1 or not DUE * interval <= days <= OVERDUE * interval:
            return None
        return Reason(code="replenish", text=f"你 {days} 天前买过「{shortened(bought[1])}」，该补货了")

    def _of_relation(self, item: CatalogueItem) -> Reason | None:
        for code, field in RELATIONS.items():
            if related := self._related[code].get(getattr(item, field)):
                text = _VERBS.get(str(related[0].kind), _BOUGHT)
                return Reason(code=code, text=text.format(shortened(related[1])))
        return None


def _latest(events: Sequence[Pair], kind: str, field: str) -> dict[tuple[str, str], Pair]:
    """Return (field, word) -> the first of ``events``, latest first, of ``kind`` with an item that bears the word."""
    found: dict[tuple[str, str], Pair] = {}
    for event, item in events:
        if event.kind == kind and (word := getattr(item, field)):
            found.setdefault((field, word), (event, item))
    return found


def shortened(item: CatalogueItem) -> str:
    """Return a title of at most ``MOST_CHARACTERS``, cut between words where it can be, never inside a character."""
    title = " ".join((item.title or item.item_id).split()).translate({ord("「"): "『", ord("」"): "』"})
    if len(title) <= MOST_CHARACTERS:
        return title
    cut = MOST_CHARACTERS - 1
    while cut > 1 and (_clings(title[cut]) or title[cut - 1] == "\u200d"):
        cut -= 1
    space = title.rfind(" ", MOST_CHARACTERS // 2, cut + 1)
    return title[: space if space > 0 else cut].rstrip() + "…"


def _clings(character: str) -> bool:
    """Say whether a character is a part of the one before it: an accent, a joiner, a colour of skin."""
    return unicodedata.category(character) in ("Mn", "Me", "Cf") or "\U0001f3fb" <= character <= "\U0001f3ff"
