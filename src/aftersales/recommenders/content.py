"""Content: items whose texts are like those of the history. It needs no events, so new items are ranked like old ones.

Lops, de Gemmis & Semeraro 2011, "Content-based Recommender Systems: State of the Art and Trends" (Recommender Systems
Handbook); here the texts are compared by an encoder's vectors and by their character n-grams.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from aftersales.core.config import Config
from aftersales.core.errors import DataError
from aftersales.corpora.interactions import Interactions
from aftersales.recommenders.base import Recommender
from aftersales.recommenders.history import recency
from aftersales.recommenders.item_text import of_length_one, text_vectors, titles, whitened

COLUMNS = ["title", "category", "product_type", "brand"]
NGRAMS = (1, 3)


class ContentConfig(Config):
    """Options of ``Content``.

    Attributes:
        encoder: of the texts: ``embedded``, a folder or a hub name.
        dimensions: of the encoder's vectors after whitening, and of the n-grams' after a singular value decomposition.
        whitening: how far directions in which the encoder's vectors differ little count as much as the others, 0 to 1.
        ngrams: weight of the similarity by n-grams; that by the encoder has the rest of 1.
        half_life: after so many events an item of the history weighs half; all weigh the same when None.
        repeat: similarity of an item to itself.
    """

    encoder: str = "embedded"
    dimensions: int = Field(default=128, ge=1)
    whitening: float = Field(default=0.5, ge=0, le=1)
    ngrams: float = Field(default=0.5, ge=0, le=1)
    half_life: float | None = Field(default=5.0, gt=0)
    repeat: float = Field(default=1.0, ge=0)


class Content(Recommender[ContentConfig]):
    """Scores an item by the sum of the similarities of its text to those of the items in the history."""

    name = "content"
    config_type = ContentConfig
    cold_items = True

    def _fit(self, train: Interactions) -> nn.Module:
        return _Similar(torch.from_numpy(item_vectors(train.items, self.config)), self.config)

    def _numbers_a_place(self, train: Interactions) -> int:
        return 4 * self.config.dimensions


def item_vectors(items: pd.DataFrame, config: ContentConfig) -> NDArray[np.float32]:
    """Return vectors of items whose products are the similarities of their texts, shape (n_items, any).

    Args:
        items: a row an item with the columns of ``Item``.
        config: the options.

    Raises:
        DataError: no item has a text.
    """
    texts = items[COLUMNS].astype(str).assign(title=titles(items)).agg(" ".join, axis=1).str.strip()
    if (texts == "").all():
        raise DataError(
            "no item of the catalogue has a title, category, product_type or brand to compare; give them with "
            "data.items, or take another model"
        )
    parts = []
    if config.ngrams < 1:
        encoded = whitened(text_vectors(texts, config.encoder), config.dimensions, config.whitening)
        parts.append(encoded * np.float32(np.sqrt(1 - config.ngrams)))
    if config.ngrams > 0:
        parts.append(_ngram_vectors(texts, config.dimensions) * np.float32(np.sqrt(config.ngrams)))
    vectors = np.concatenate(parts, axis=1)
    vectors[(texts == "").to_numpy()] = 0  # an item without a text is like no other
    return vectors


def _ngram_vectors(texts: "pd.Series[str]", dimensions: int) -> NDArray[np.float32]:
    """Return vectors of length one, by the singular vectors of TF-IDF over character n-grams."""
    weights = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True).fit_transform(texts)
    kept = max(1, min(dimensions, *(side - 1 for side in weights.shape)))
    return of_length_one(TruncatedSVD(kept, random_state=0).fit_transform(weights))


class _Similar(nn.Module):
    vectors: Tensor

    def __init__(self, vectors: Tensor, config: ContentConfig) -> None:
        super().__init__()
        self.half_life, self.repeat = config.half_life, config.repeat
        self.register_buffer("vectors", nn.functional.pad(vectors, (0, 0, 1, 0)))  # row 0 is padding

    def forward(self, history: Tensor, *_: Tensor) -> Tensor:
        item, weight = recency(history, self.half_life)
        read = self.vectors[item]
        scores = (weight[:, None] @ read)[:, 0] @ self.vectors.t()
        itself = weight * (read * read).sum(dim=2)
        return scores.scatter_add(1, item, (self.repeat - 1) * itself)[:, 1:]
