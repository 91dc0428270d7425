"""The lexical half of a classifier: character n-grams, weighted by TF-IDF, times one row of weights each.

Dense and sparse features see different things: the encoder generalises over wordings, the n-grams remember exact ones
(as in DIET, Bunk et al. 2020, section 3). On a thousand rows the sparse half alone is hard to beat;
``classifiers.linear`` fits it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aftersales.core.errors import ModelError
from aftersales.core.files import write_text
from aftersales.text.normalise import normalise

WEIGHTS = "lexical.safetensors"
VOCABULARY = "lexical.json"
LONGEST = 3


def lexical_form(text: str) -> str:
    """Return the form of a text whose n-grams are counted."""
    return normalise(text).lower()


@dataclass(frozen=True)
class Lexical:
    """A linear model over character 1- to 3-grams.

    Attributes:
        vocabulary: n-gram -> row of ``weights``.
        idf: inverse document frequencies, float32 of shape (n-grams,).
        weights: float16 of shape (n-grams, labels).
        bias: float32 of shape (labels,).
    """

    vocabulary: Mapping[str, int]
    idf: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the decision values, float32 of shape (texts, labels).

        Term frequencies are sublinear, 1 + ln(tf), and each text's vector has length one.
        """
        out = np.tile(self.bias, (len(texts), 1))
        for row, text in enumerate(texts):
            known = self._count(lexical_form(text))
            if known:
                places = np.fromiter(known.keys(), dtype=np.int64, count=len(known))
                counts = np.fromiter(known.values(), dtype=np.float32, count=len(known))
                values = (1 + np.log(counts)) * self.idf[places]
                values /= np.linalg.norm(values)
                out[row] += values @ self.weights[places].astype(np.float32)
        return out

    def _count(self, text: str) -> Counter[int]:
        found: Counter[int] = Counter()
        for length in range(1, LONGEST + 1):
            for start in range(len(text) - length + 1):
                place = self.vocabulary.get(text[start : start + length])
                if place is not None:
                    found[place] += 1
        return found

    def write(self, folder: Path) -> None:
        """Write vocabulary and weights into a model folder."""
        ordered = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        write_text(folder / VOCABULARY, json.dumps(ordered, ensure_ascii=False))
        save_file({"idf": self.idf, "weights": self.weights, "bias": self.bias}, folder / WEIGHTS)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            ModelError: a file is missing or unreadable.
        """
        try:
            ngrams = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
            return cls({ngram: place for place, ngram in enumerate(ngrams)}, **tensors)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"{folder / WEIGHTS} or {VOCABULARY} cannot be read ({error}); export the model again"
            ) from None
