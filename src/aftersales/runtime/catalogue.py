"""What a recommender's folder says of its items, kept by column: a million items need no million objects."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from aftersales.core.errors import ModelError


class CatalogueItem(BaseModel):
    """One item, as in ``items.json``.

    Attributes:
        item_id: unique name.
        title: as shown in the shop.
        category: one of the shop's categories.
        kind: ``product`` or ``service``.
        price: CNY; 0 where a service is free, or the price of a product is not known.
        product_type: the finer class within the category; empty where not known, as are brand and group.
        brand: maker.
        group: the same for all variants (size, colour) of one product.
    """

    model_config = ConfigDict(frozen=True)

    item_id: str
    title: str
    category: str
    kind: str
    price: float = 0.0
    product_type: str = ""
    brand: str = ""
    group: str = ""


class Labels(NamedTuple):
    """A column of few different words.

    Attributes:
        numbers: word -> its number.
        column: number of each item's word, int32 of shape (n_items,).
        words: number -> word.
    """

    numbers: Mapping[str, int]
    column: NDArray[np.int32]
    words: Sequence[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """Number the words in the order in which they first come."""
        numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
        column = np.fromiter((numbers[word] for word in words), dtype=np.int32, count=len(words))
        return cls(numbers, column, list(numbers))

    def is_any(self, wanted: Sequence[str]) -> NDArray[np.bool_]:
        """Return which items bear one of the words, bool of shape (n_items,); unknown words are borne by none."""
        chosen = np.zeros(max(1, len(self.words)), dtype=np.bool_)
        chosen[[self.numbers[word] for word in wanted if word in self.numbers]] = True
        return chosen[self.column]


class Catalogue(Sequence[CatalogueItem]):
    """Items in the order of the model's columns; safe to share between threads.

    Attributes:
        ids: item ids.
        prices: CNY, float64 of shape (n_items,).
    """

    def __init__(self, items: Sequence[CatalogueItem]) -> None:
        self.ids = [item.item_id for item in items]
        self.prices = np.array([item.price for item in items], dtype=np.float64)
        self._titles = [item.title for item in items]
        self.categories = Labels.of([item.category for item in items])
        self.kinds = Labels.of([item.kind for item in items])
        self.product_types = Labels.of([item.product_type for item in items])
        self.brands = Labels.of([item.brand for item in items])
        self.groups = Labels.of([item.group for item in items])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the items of a model folder.

        Raises:
            ModelError: the file is missing or unreadable.
        """
        try:
            return cls(TypeAdapter(list[CatalogueItem]).validate_json((folder / "items.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} cannot be read: {error}; export the model again") from None

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Item id -> item index, from 1."""
        return {item_id: number for number, item_id in enumerate(self.ids, 1)}

    @cached_property
    def of_kind(self) -> Mapping[str, NDArray[np.bool_]]:
        """Kind -> which items are of it, bool of shape (n_items,); kept, as almost every request asks for one."""
        return {kind: self.kinds.is_any([kind]) for kind in self.kinds.words}

    @cached_property
    def priced(self) -> NDArray[np.bool_]:
        """Which items have a known price, bool of shape (n_items,): every service, and products of more than nothing.

        Where no item costs anything, prices are not known at all, and no item has one.
        """
        costs = self.prices > 0
        return costs | self.of_kind["service"] if costs.any() and "service" in self.of_kind else costs

    def item(self, item_id: str) -> CatalogueItem | None:
        """Return an item by its id, or None where the catalogue does not list it."""
        number = self.numbers.get(item_id)
        return None if number is None else self[number - 1]

    def kind_of(self, item_id: str) -> str:
        """Return whether an item of the catalogue is a ``product`` or a ``service``."""
        return self.kinds.words[int(self.kinds.column[self.numbers[item_id] - 1])]

    def mask(self, item_ids: Iterator[str] | Sequence[str]) -> NDArray[np.bool_]:
        """Return which items these are, bool of shape (n_items,); ids that the catalogue does not list are ignored."""
        found = np.zeros(len(self), dtype=np.bool_)
        found[[self.numbers[item] - 1 for item in item_ids if item in self.numbers]] = True
        return found

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> CatalogueItem: ...
    @overload
    def __getitem__(self, place: slice) -> list[CatalogueItem]: ...
    def __getitem__(self, place: int | slice) -> CatalogueItem | list[CatalogueItem]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        words = {
            "category": self.categories,
            "kind": self.kinds,
            "product_type": self.product_types,
            "brand": self.brands,
            "group": self.groups,
        }
        return CatalogueItem(
            item_id=self.ids[place],
            title=self._titles[place],
            price=float(self.prices[place]),
            **{name: labels.words[int(labels.column[place])] for name, labels in words.items()},
        )
