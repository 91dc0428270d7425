"""The invented shop of ``data/interactions/catalogue.yaml`` and the items made of it."""

import math
import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from aftersales.core.config import Config, load
from aftersales.core.errors import nearest
from aftersales.core.paths import project_root
from aftersales.corpora.interactions import Item

SERVICE_CATEGORY = "售后服务"
# Products a type: types in demand have more makers. Variants: enough for a full run of sizes.
GROUPS, GROUPS_IN_DEMAND, MAX_VARIANTS = 4, 6, 4

Probability = Annotated[float, Field(ge=0, le=1)]


class Service(Config):
    """An after-sales service."""

    title: str
    price: float = Field(ge=0)


class Next(Config):
    """A purchase that another one leads to: with this chance, after ``days`` (from, to)."""

    type: str
    chance: Probability = Field(gt=0, le=1)
    days: tuple[int, int]


class ProductType(Config):
    """One type of product; the head of the YAML file says what each field means."""

    name: str
    names: list[str] = Field(min_length=1)
    words: list[str] = Field(min_length=1)
    options: list[list[str]] = Field(min_length=1)
    price: tuple[float, float]
    weight: float = Field(gt=0)
    every: int | None = Field(default=None, gt=0)
    loyal: Probability = 0.5
    returns: Probability = 0.04
    complaints: Probability = 0.08
    then: tuple[Next, ...] = ()
    fits: str | None = None
    segment: str | None = Field(default=None, alias="for")
    stages: list[int] | None = None
    causes: dict[str, float] | None = None
    after_purchase: dict[str, Probability] = Field(default_factory=dict)
    after_complaint: dict[str, Probability] | None = None
    after_return: dict[str, Probability] | None = None


class Category(Config):
    """A category; what it says of causes and services holds for each of its types that says nothing."""

    name: str
    brands: list[str] = Field(min_length=GROUPS_IN_DEMAND)
    causes: dict[str, float]
    after_complaint: dict[str, Probability]
    after_return: dict[str, Probability]
    types: list[ProductType]


class Catalogue(Config):
    """The whole file."""

    version: int
    segments: dict[str, Probability]
    services: dict[str, Service]
    categories: list[Category]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        types = [kind.name for category in self.categories for kind in category.types]
        if twice := {name for name in types if types.count(name) > 1}:
            raise ValueError(f"type {min(twice)!r} is there twice")
        for category in self.categories:
            for kind in category.types:
                named = [step.type for step in kind.then] + ([kind.fits] if kind.fits else [])
                for missing in set(named) - set(types):
                    raise ValueError(f"type {kind.name!r} names the unknown type {missing!r}{nearest(missing, types)}")
                chances = (kind.after_purchase, kind.after_complaint or {}, kind.after_return or {})
                for missing in set().union(*chances) - self.services.keys():
                    hint = nearest(missing, self.services)
                    raise ValueError(f"type {kind.name!r} names the unknown service {missing!r}{hint}")
                if kind.segment and kind.segment not in self.segments:
                    raise ValueError(f"type {kind.name!r}: unknown segment {kind.segment!r}")
        return self


@dataclass(frozen=True)
class Stocked:
    """An item with what only the generator knows of it.

    Attributes:
        item: what everybody sees.
        level: where its price lies between the type's cheapest (0) and dearest (1).
        options: index of its option in each list of the type.
        fits_brand: the brand of the other product that it is made for, or empty.
        quality: 0 to 1; returns and complaints fall with it.
        popularity: weight in every choice, log-normal.
    """

    item: Item
    level: float
    options: tuple[int, ...]
    fits_brand: str
    quality: float
    popularity: float


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read the catalogue that ships with the project, or another one.

    Raises:
        ConfigError: the file is missing or wrong; the key is named.
    """
    return load(Catalogue, path or project_root() / "data" / "interactions" / "catalogue.yaml")


def service_items(catalogue: Catalogue) -> dict[str, Item]:
    """Return the after-sales services as items, by name."""
    return {
        name: Item(f"S-{name}", service.title, SERVICE_CATEGORY, service.price, "service", name)
        for name, service in catalogue.services.items()
    }


def stock(catalogue: Catalogue, seed: int) -> dict[str, list[Stocked]]:
    """Draw the products of every type, reproducibly by ``seed``; ids count from P00001."""
    draw = random.Random(f"{seed} catalogue")  # noqa: S311
    shelves: dict[str, list[Stocked]] = {}
    category_of = {kind.name: category for category in catalogue.categories for kind in category.types}
    kinds = {kind.name: kind for category in catalogue.categories for kind in category.types}
    count = 0
    # Devices first, because what fits them must know their brands.
    for kind in sorted(kinds.values(), key=lambda kind: kind.fits is not None):
        fitted = sorted({entry.item.brand for entry in shelves[kind.fits]}) if kind.fits else []
        shelves[kind.name] = _shelf(kind, category_of[kind.name], fitted, draw, count)
        count += len(shelves[kind.name])
    return shelves


def _shelf(kind: ProductType, category: Category, fitted: list[str], draw: random.Random, count: int) -> list[Stocked]:
    """Draw the products of one type: some brands with one product each, each in several variants."""
    shelf: list[Stocked] = []
    n_groups = len(fitted) or (GROUPS_IN_DEMAND if kind.weight >= 1 else GROUPS)
    brands = sorted(draw.sample(range(len(category.brands)), min(n_groups, len(category.brands))))
    phrases = draw.sample([word + name for word in kind.words for name in kind.names], n_groups)
    for group in range(n_groups):
        rank = brands[group % len(brands)]
        fits_brand = fitted[group] if fitted else ""
        lead = f"{category.brands[rank]} {'适用' + fits_brand if fits_brand else ''}{phrases[group]}"
        quality, fame = draw.betavariate(5, 2), draw.lognormvariate(0, 1.1)
        for options in _variants(kind, draw):
            spread = options[0] / max(1, len(kind.options[0]) - 1)
            level = min(1.0, max(0.0, 0.8 * rank / (len(category.brands) - 1) + 0.2 * spread + draw.gauss(0, 0.04)))
            chosen = " ".join(choices[option] for choices, option in zip(kind.options, options, strict=True))
            item = Item(
                item_id=f"P{count + len(shelf) + 1:05d}",
                title=f"{lead} {chosen}",
                category=category.name,
                price=_price(kind.price, level),
                product_type=kind.name,
                brand=category.brands[rank],
                group=f"{kind.name}-{group + 1}",
            )
            popularity = fame * draw.lognormvariate(0, 0.7)
            shelf.append(Stocked(item, level, options, fits_brand, quality, popularity))
    return shelf


def _variants(kind: ProductType, draw: random.Random) -> list[tuple[int, ...]]:
    """Return the option indices of the variants: every option of the first list, drawn ones of the others."""
    combinations = list(product(*map(range, map(len, kind.options))))
    if len(combinations) <= MAX_VARIANTS:
        return combinations
    firsts = range(len(kind.options[0]))
    return [(first, *(draw.randrange(len(others)) for others in kind.options[1:])) for first in firsts]


def _price(bounds: tuple[float, float], level: float) -> float:
    """Return a price with the usual ending 9, geometrically between the bounds."""
    low, high = bounds
    price = low * math.exp(level * math.log(high / low))
    return float(round(price / 10) * 10 - 1) if price > 100 else float(round(price))
