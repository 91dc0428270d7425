"""Seeded histories of invented users over one year in the shop of ``data/interactions/catalogue.yaml``.

What there is to learn: users differ in the categories, brands, price levels and sizes they choose; a purchase
leads to others (phone, case, film); consumables come back at their interval, mostly as the same item; baby
goods move on with the baby's age; bad items are complained of and returned, then exchanged or replaced by
another brand; after-sales services follow by product type. The data card states every assumption.
"""

import heapq
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count

from aftersales.corpora.catalogue import (
    Catalogue,
    Category,
    ProductType,
    Stocked,
    load_catalogue,
    service_items,
    stock,
)
from aftersales.corpora.interactions import Event, Interactions
from aftersales.runtime.events import EventKind

START = 1735689600  # 2025-01-01T00:00:00Z
DAY = 86_400
DAYS = 365
FESTIVALS = (168, 314)  # 18 June and 11 November, as days of the year
FESTIVAL_SHARE = 0.2
# Needs a year that arise out of the blue, median over users; everything else follows from purchases.
NEEDS = 10.0
GIVES_UP = 0.18
COMES_BACK = 0.8
REPLACES = 0.55


@dataclass
class _Shop:
    catalogue: Catalogue
    shelves: Mapping[str, list[Stocked]]
    types: Mapping[str, ProductType] = field(init=False)
    category_of: Mapping[str, Category] = field(init=False)

    def __post_init__(self) -> None:
        pairs = [(kind, category) for category in self.catalogue.categories for kind in category.types]
        self.types = {kind.name: kind for kind, _ in pairs}
        self.category_of = {kind.name: category for kind, category in pairs}


def generate(seed: int = 1, users: int = 2000, catalogue: Catalogue | None = None) -> Interactions:
    """Generate a catalogue and one year of events; the same arguments give the same bytes.

    Args:
        seed: of catalogue and histories; user n does not depend on how many users there are.
        users: number of users, at least 1.
        catalogue: another shop than the one that ships.
    """
    catalogue = catalogue or load_catalogue()
    shop = _Shop(catalogue, stock(catalogue, seed))
    products = sorted((entry.item for shelf in shop.shelves.values() for entry in shelf), key=lambda item: item.item_id)
    events = [event for number in range(1, users + 1) for event in _User(shop, number, seed).year()]
    return Interactions.of([*products, *service_items(catalogue).values()], events)


class _User:
    """One user: lasting tastes, and an agenda of needs that purchases add to."""

    def __init__(self, shop: _Shop, number: int, seed: int) -> None:
        self.shop, self.id = shop, f"U{number:05d}"
        self.draw = draw = random.Random(f"{seed} user {number}")  # noqa: S311
        self.level = draw.betavariate(1.6, 2.2)
        self.months = draw.uniform(-3, 30)  # age of the baby on the first day
        self.segments = {name for name, share in shop.catalogue.segments.items() if draw.random() < share}
        self.size = draw.random()  # position in every list of options: sizes and colours stay the same
        self.brands: dict[str, float] = {}
        self.weights: dict[str, list[float]] = {}
        self.disliked: set[str] = set()
        self.owned: set[str] = set()
        self.events: list[Event] = []
        self.agenda: list[tuple[float, int, str, Stocked | None, str]] = []
        self.tickets = count()  # decides between needs of the same moment
        self.wants = list(accumulate(self._taste()))

    def year(self) -> list[Event]:
        """Live through the year and return the events in the order in which they were made."""
        names = list(self.shop.types)
        for _ in range(max(2, round(NEEDS * self.draw.lognormvariate(0, 0.5)))):
            name = self.draw.choices(names, cum_weights=self.wants)[0]
            self._plan(self._some_day(), name)
        while self.agenda:
            day, _, name, same, brand = heapq.heappop(self.agenda)
            self._shop_for(day, self.shop.types[name], same, brand)
        return [event for event in self.events if event.timestamp < START + DAYS * DAY]

    def _taste(self) -> list[float]:
        """Return the weight of every product type: a few categories make up most of a user's needs."""
        taste = {category.name: self.draw.gammavariate(0.15, 1.0) for category in self.shop.catalogue.categories}
        weights = []
        for name, kind in self.shop.types.items():
            liking = taste[self.shop.category_of[name].name]
            if kind.segment:
                liking = liking + 0.3 if kind.segment in self.segments else 0.0
            weights.append(liking * kind.weight)
        return weights

    def _some_day(self) -> float:
        if self.draw.random() < FESTIVAL_SHARE:
            return self.draw.choice(FESTIVALS) + self.draw.uniform(-2, 2)
        return self.draw.uniform(0, DAYS)

    def _plan(self, day: float, name: str, same: Stocked | None = None, brand: str = "") -> None:
        if day < DAYS:
            heapq.heappush(self.agenda, (day, next(self.tickets), name, same, brand))

    def _note(self, day: float, item_id: str, kind: EventKind, detail: str = "") -> None:
        self.events.append(Event(self.id, item_id, kind, START + int(day * DAY), detail))

    def _shop_for(self, day: float, kind: ProductType, same: Stocked | None, brand: str) -> None:
        """Look around for one type of product and buy or give up."""
        repeated = same is not None or bool(brand)
        if kind.every is None and kind.name in self.owned and not repeated and self.draw.random() < 0.8:
            return
        chosen = same or self._choose(kind, day, brand)
        looked_at = [self._choose(kind, day, brand) for _ in range(0 if same else self.draw.randrange(4))]
        for minutes, seen in enumerate([*looked_at, chosen]):
            self._note(day - (len(looked_at) + 2 - minutes) / 200, seen.item.item_id, "view")
        if self.draw.random() < 0.7:
            self._note(day - 1 / 200, chosen.item.item_id, "cart")
        if same is None and self.draw.random() < GIVES_UP:
            return
        self._buy(day, kind, chosen)

    def _choose(self, kind: ProductType, day: float, brand: str) -> Stocked:
        shelf = self.shop.shelves[kind.name]
        if kind.name not in self.weights:
            self.weights[kind.name] = [self._liking(entry, kind) for entry in shelf]
        weights = self.weights[kind.name]
        stage = self._stage(kind.stages, day) if kind.stages else None
        now = [
            weight
            * (0.002 if brand and brand not in (entry.fits_brand, entry.item.brand) else 1.0)
            * (0.01 if stage is not None and entry.options[0] != stage else 1.0)
            * (0.03 if entry.item.group in self.disliked else 1.0)
            for weight, entry in zip(weights, shelf, strict=True)
        ]
        return self.draw.choices(shelf, now)[0]

    def _liking(self, entry: Stocked, kind: ProductType) -> float:
        """Return how much the user is drawn to an item: fame, brand, distance in price, the usual size."""
        brand = self.brands.setdefault(entry.item.brand, math.exp(self.draw.gauss(0, 1.3)))
        near = math.exp(-((entry.level - self.level) ** 2) / (2 * 0.15**2))
        usual = int(self.size * len(kind.options[0]))
        fitting = 1.0 if kind.stages or entry.options[0] == usual else 0.08
        return entry.popularity * brand * (near + 0.02) * fitting

    def _stage(self, stages: Sequence[int], day: float) -> int:
        months = max(0.0, self.months + day / 30.4)
        return max(index for index, start in enumerate(stages) if start <= months)

    def _buy(self, day: float, kind: ProductType, entry: Stocked) -> None:
        """Buy, receive, and do what follows from how good the item is."""
        draw, name = self.draw, entry.item.item_id
        self._note(day, name, "buy")
        self.owned.add(kind.name)
        arrival = day + draw.uniform(1, 4)
        risk = 3.5 * (1 - entry.quality)  # 1 at the mean quality of 5/7
        complains = draw.random() < kind.complaints * risk
        returns = draw.random() < kind.returns * risk * (3 if complains else 0.8)
        if draw.random() < 0.35:
            mood = "negative" if complains or returns else draw.choices(["positive", "neutral"], [3, 1])[0]
            self._note(arrival + draw.uniform(1, 10), name, "review", mood)
        if complains:
            self._complain(arrival + draw.uniform(0, 3), kind, entry)
        if returns:
            self._return(arrival + draw.uniform(3, 7), kind, entry)
            return
        self._services(arrival, kind.after_purchase, name)
        self._plan_more(day, kind, entry, satisfied=not complains)

    def _plan_more(self, day: float, kind: ProductType, entry: Stocked, satisfied: bool) -> None:
        for step in kind.then:
            if self.draw.random() < step.chance:
                brand = entry.item.brand if self.shop.types[step.type].fits == kind.name else ""
                self._plan(day + self.draw.uniform(*step.days), step.type, brand=brand)
        if kind.every and self.draw.random() < COMES_BACK:
            again = day + kind.every * self.draw.lognormvariate(0, 0.15)
            stays = satisfied and self.draw.random() < kind.loyal
            self._plan(again, kind.name, same=self._same(kind, entry, again) if stays else None, brand=entry.fits_brand)

    def _same(self, kind: ProductType, entry: Stocked, day: float) -> Stocked:
        """Return the item itself, or its variant for the baby's next stage."""
        if not kind.stages or entry.options[0] == (stage := self._stage(kind.stages, day)):
            return entry
        variants = [e for e in self.shop.shelves[kind.name] if e.item.group == entry.item.group]
        return next((e for e in variants if e.options[0] == stage), entry)

    def _complain(self, day: float, kind: ProductType, entry: Stocked) -> None:
        category = self.shop.category_of[kind.name]
        self._note(day, entry.item.item_id, "complain", self._cause(kind))
        offered = category.after_complaint if kind.after_complaint is None else kind.after_complaint
        self._services(day, offered, entry.item.item_id)

    def _return(self, day: float, kind: ProductType, entry: Stocked) -> None:
        """Send the item back; then have it exchanged for a variant, or buy another product, or neither."""
        category = self.shop.category_of[kind.name]
        name = entry.item.item_id
        self._note(day, name, "return", self._cause(kind))
        offered = category.after_return if kind.after_return is None else kind.after_return
        taken = self._services(day, {key: chance for key, chance in offered.items() if key != "exchange"}, name)
        if self.draw.random() < offered.get("exchange", 0.0):
            self._note(day + 0.3, "S-exchange", "service", name)
            variants = [e for e in self.shop.shelves[kind.name] if e.item.group == entry.item.group]
            self._note(day + 3, self.draw.choice(variants).item.item_id, "buy", "exchange")
            return
        self.disliked.add(entry.item.group)
        if self.draw.random() < REPLACES:
            self._plan(day + self.draw.uniform(1, 12) + taken, kind.name, brand=entry.fits_brand)

    def _services(self, day: float, chances: Mapping[str, float], product_id: str) -> int:
        """Book each service with its chance within a day and return how many were booked."""
        booked = [name for name, chance in chances.items() if self.draw.random() < chance]
        for name in booked:
            self._note(day + self.draw.uniform(0.05, 1), f"S-{name}", "service", product_id)
        return len(booked)

    def _cause(self, kind: ProductType) -> str:
        causes = kind.causes or self.shop.category_of[kind.name].causes
        return self.draw.choices(list(causes), list(causes.values()))[0]
