"""Vectors of item texts by an encoder, made comparable."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from aftersales.encoders.load import load_encoder, load_tokenizer
from aftersales.text.normalise import normalise

Floats = NDArray[np.float32]
MAX_TOKENS = 64
TEXTS_AT_ONCE = 64
# Directions in which vectors differ less than this, beside the first, are noise that whitening would blow up.
LEAST = 1e-3


def titles(items: pd.DataFrame) -> "pd.Series[str]":
    """Return the titles of a catalogue, shape (n_items,); empty where the id stands in for one.

    Args:
        items: a row an item with the columns of ``Item``.
    """
    named = items["title"].astype(str).str.strip()
    return named.mask(named == items["item_id"].astype(str), "")


def text_vectors(texts: "Sequence[str] | pd.Series[str]", encoder: str) -> Floats:
    """Return the mean of the encoder's last states over the tokens of each text, shape (texts, width).

    Equal texts are read once, and those of the last catalogues not again.

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    distinct, place = np.unique(np.array([normalise(str(text)) for text in texts]), return_inverse=True)
    vectors: Floats = _vectors(tuple(distinct.tolist()), encoder)[place]
    return vectors


@lru_cache(maxsize=2)
def _vectors(texts: tuple[str, ...], encoder: str) -> Floats:
    tokenizer, model = load_tokenizer(encoder), load_encoder(encoder).eval()
    longest = min(MAX_TOKENS, model.config.max_position_embeddings)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of like length need little padding
    found = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), TEXTS_AT_ONCE):
            rows = order[start : start + TEXTS_AT_ONCE]
            batch = tokenizer(
                [texts[row] for row in rows],
                truncation=True,
                max_length=longest,
                padding=True,
                return_token_type_ids=False,
                return_tensors="pt",
            )
            real = batch["attention_mask"][:, :, None].float()
            states = model(**batch).last_hidden_state
            found[rows] = ((states * real).sum(dim=1) / real.sum(dim=1)).numpy()
    return found


def whitened(vectors: Floats, dimensions: int, strength: float = 1.0) -> Floats:
    """Return vectors of length one with the mean taken away and all directions made alike.

    Encoders crowd their vectors into a few directions, so that all cosines are near one (Su et al. 2021, arXiv
    2103.15316). But what tells variants of one product apart then counts as much as what tells products apart, which a
    smaller ``strength`` prevents.

    Args:
        vectors: shape (rows, width).
        dimensions: directions to keep at most, those in which the vectors differ most.
        strength: power of the spread in a direction that it is divided by: 0 only takes the mean away.

    Returns:
        Shape (rows, kept), at least one kept; a vector that is the mean is zero.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(np.unique(centred, axis=0), full_matrices=False)
    kept = max(1, min(dimensions, int((spread > LEAST * spread[0]).sum())))
    white = centred @ (directions[:kept].T / np.maximum(spread[:kept], np.finfo(np.float64).tiny) ** strength)
    return of_length_one(white)


def of_length_one(vectors: NDArray[np.float64]) -> Floats:
    """Return the vectors divided by their lengths, zero ones as they are, shape (rows, width)."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)
    return found
