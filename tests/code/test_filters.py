"""Which items an answer may show."""

import numpy as np
import pytest

from aftersales.runtime.catalogue import Catalogue, CatalogueItem
from aftersales.runtime.events import PastEvent
from aftersales.runtime.filters import FilterError, Filters


def item(item_id: str, category: str, price: float = 0.0, kind: str = "product") -> CatalogueItem:
    return CatalogueItem(item_id=item_id, title=item_id, category=category, kind=kind, price=price)


ITEMS = [
    item("P1", "手机配件", 10),
    item("P2", "手机配件", 30),
    item("P3", "食品", 20),
    item("P4", "食品"),  # of unknown price
    item("S1", "售后服务", 0, "service"),
    item("S2", "售后服务", 99, "service"),
]
CATALOGUE = Catalogue(ITEMS)
HISTORY = [PastEvent("P1"), PastEvent("P2", "view"), PastEvent("P3", "return"), PastEvent("gone", "buy")]


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        (Filters(kind="product"), "P1 P2 P3 P4"),
        (Filters(kind="service"), "S1 S2"),
        (Filters(categories=["食品", "售后服务"]), "P3 P4 S1 S2"),
        (Filters(categories=[]), ""),
        (Filters(exclude_categories=["食品"]), "P1 P2 S1 S2"),
        (Filters(categories=["食品"], exclude_categories=["食品"]), ""),
        (Filters(exclude_items=["P1", "P1", "S2", "gone"]), "P2 P3 P4 S1"),
        (Filters(price_max=20), "P1 P3 S1"),
        (Filters(price_max=0), "S1"),
        (Filters(exclude_seen=True), "P2 P4 S1 S2"),
        (Filters(among=np.array([True, False, False, True, True, False])), "P1 P4 S1"),
        (Filters(kind="product", categories=["手机配件"], price_max=20, exclude_items=["P1"]), ""),
    ],
)
def test_each_filter_narrows(filters: Filters, shown: str) -> None:
    mask = filters.shown(CATALOGUE, HISTORY)
    assert mask is not None and [one for one, yes in zip(CATALOGUE.ids, mask, strict=True) if yes] == shown.split()


def test_no_filter_is_no_mask() -> None:
    assert Filters().shown(CATALOGUE, HISTORY) is None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            Filters(categories=["食品", "手机配"]),
            r"categories\[1\]: the catalogue has no such category; did you mean '手机配件'\?",
        ),
        (Filters(exclude_categories=["x"]), r"exclude_categories\[0\]: .*; known: 手机配件, 食品, 售后服务$"),
        (Filters(kind="produkt"), r"kind: the catalogue has no item of this kind; did you mean 'product'\?"),
    ],
)
def test_what_the_catalogue_does_not_have_is_refused_by_the_nearest_name(filters: Filters, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        filters.shown(CATALOGUE, [])


def test_a_price_needs_prices() -> None:
    with pytest.raises(FilterError, match="price_max: the catalogue has no prices"):
        Filters(price_max=5).shown(Catalogue([item("P1", "食品")]), [])


def test_a_catalogue_gives_back_its_items() -> None:
    assert list(CATALOGUE) == ITEMS and CATALOGUE[1:3] == ITEMS[1:3] and len(CATALOGUE) == len(ITEMS)
    assert CATALOGUE.item("P3") == ITEMS[2] and CATALOGUE.item("gone") is None
    assert CATALOGUE.kind_of("S1") == "service" and CATALOGUE.numbers["P1"] == 1
    with pytest.raises(IndexError):
        CATALOGUE[len(ITEMS)]
