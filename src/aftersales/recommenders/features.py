"""Vectors of items from what is known of them: their number, their properties, the text of their title."""

from collections.abc import Sequence
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from aftersales.core.errors import DataError
from aftersales.recommenders.item_text import text_vectors, titles, whitened

Feature = Literal["category", "product_type", "brand", "attributes", "title"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
INITIAL_SPREAD = 0.05
# Dimensions of a title that are kept.
TEXT_DIMENSIONS = 128


class ItemTable(nn.Module):
    """Item vectors as a sum of learned parts: one of the item alone, one of each property, and the projected title.

    An item without events has no part of its own. So that the other parts suffice, some items lose theirs at random
    while the model learns.
    """

    known: Tensor
    places: Tensor
    offsets: Tensor
    weights: Tensor
    text: Tensor

    def __init__(
        self,
        known: NDArray[np.bool_],
        properties: "Properties",
        text: Tensor | None,
        dimensions: int,
        id_dropout: float,
    ) -> None:
        """Make fresh vectors.

        Args:
            known: which items have events, shape (n_items,).
            properties: of the items.
            text: vectors of the titles, shape (n_items, any), where they are wanted.
            dimensions: of the item vectors.
            id_dropout: share of the items that lose the part of their own at a time.
        """
        super().__init__()
        described = properties.n_values > 0 or text is not None
        self.id_dropout = id_dropout if described else 0.0
        self.own = nn.Embedding(len(known) + 1, dimensions, padding_idx=0)
        self.values = nn.Embedding(properties.n_values, dimensions) if properties.n_values else None
        self.project = nn.Linear(text.shape[1], dimensions, bias=False) if text is not None else None
        for table in (self.own, self.values):
            if table is not None:
                nn.init.normal_(table.weight, std=INITIAL_SPREAD)
        self.register_buffer("known", torch.from_numpy(known | (not described))[:, None].float())
        self.register_buffer("places", torch.from_numpy(properties.places))
        self.register_buffer("offsets", torch.from_numpy(properties.offsets))
        self.register_buffer("weights", torch.from_numpy(properties.weights))
        self.register_buffer("text", torch.zeros(0) if text is None else text)

    @classmethod
    def of(
        cls,
        items: pd.DataFrame,
        known: NDArray[np.bool_],
        features: Sequence[Feature],
        dimensions: int,
        id_dropout: float,
        encoder: str,
    ) -> Self:
        """Make fresh vectors of a catalogue.

        Args:
            items: a row an item with the columns of ``Item``.
            known: which items have events, shape (n_items,).
            features: what to use beside the item itself.
            dimensions: of the item vectors.
            id_dropout: share of the items that lose the part of their own at a time.
            encoder: of the titles.

        Raises:
            DataError: a feature is empty for every item.
        """
        items = items.assign(title=titles(items))
        for feature in features:
            if (items[feature].astype(str).str.strip() == "").all():
                raise DataError(
                    f"no item has {feature}; leave it out of model.options.features, or give it with data.items"
                )
        text = None
        if "title" in features:
            text = whitened(text_vectors(items["title"], encoder), TEXT_DIMENSIONS)
            text[(items["title"] == "").to_numpy()] = 0  # an item without a title is like no other
        properties = Properties(items, [feature for feature in features if feature != "title"])
        return cls(known, properties, None if text is None else torch.from_numpy(text), dimensions, id_dropout)

    def forward(self) -> Tensor:
        """Return the vectors, shape (n_items + 1, dimensions); row 0 is zero."""
        rows = self.own.weight[1:] * self.known
        if self.training and self.id_dropout:
            rows = rows * (torch.rand_like(self.known) >= self.id_dropout)
        if self.values is not None:
            rows = rows + functional.embedding_bag(
                self.places, self.values.weight, self.offsets, mode="sum", per_sample_weights=self.weights
            )
        if self.project is not None:
            rows = rows + self.project(self.text)
        return functional.pad(rows, (0, 0, 1, 0))


class Properties:
    """Which values each item has: those of an item in a column share a weight of one.

    Attributes:
        n_values: number of distinct values of all columns.
        places: numbers of the values of all items one after the other, int64 of shape (entries,).
        weights: of each entry, float32 of that shape.
        offsets: where each item's entries begin, int64 of shape (n_items,).
    """

    def __init__(self, items: pd.DataFrame, columns: Sequence[str]) -> None:
        """Number the values of ``columns``; ``attributes`` holds several joined by ``|``."""
        numbers: dict[tuple[str, str], int] = {}
        places: list[int] = []
        weights: list[float] = []
        offsets: list[int] = []
        for row in items[list(columns)].astype(str).itertuples(index=False):
            offsets.append(len(places))
            for column, cell in zip(columns, row, strict=True):
                values = [value for value in (cell.split("|") if column == "attributes" else [cell]) if value.strip()]
                places += [numbers.setdefault((column, value), len(numbers)) for value in values]
                weights += [1 / max(1, len(values))] * len(values)
        self.n_values = len(numbers)
        self.places, self.offsets = np.array(places, dtype=np.int64), np.array(offsets, dtype=np.int64)
        self.weights = np.array(weights, dtype=np.float32)
