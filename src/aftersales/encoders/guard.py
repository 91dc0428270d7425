"""Texts that an encoder must not learn from, because something will be measured on them."""

import hashlib
from collections.abc import Sequence, Set

from aftersales.corpora.labelled import FOLDS, LabelledData
from aftersales.corpora.public import FOLDED, load_public
from aftersales.corpora.public.intents import SEPARATOR
from aftersales.text.normalise import key, normalise


def mark(text: str) -> bytes:
    """Return a short key under which two texts count as one, whatever their punctuation, case and width."""
    return hashlib.blake2b(key(normalise(text)).encode(), digest_size=8).digest()


def fingerprint_of_marks(marks: Set[bytes]) -> str:
    """Return the SHA-256 of a set of marks."""
    return hashlib.sha256(b"".join(sorted(marks))).hexdigest()


def guarded_marks(names: Sequence[str]) -> frozenset[bytes]:
    """Return the marks of all validation and test texts of public sets; of sets with folds, every fold's.

    Turns that a set joins with their context are guarded each by itself as well.

    Raises:
        ConfigError: a set is unknown, or the folder of public sets is not set.
    """
    parts: list[LabelledData] = []
    for name in names:
        parts += [load_public(name, fold) for fold in (range(FOLDS) if name in FOLDED else (None,))]
    texts = {example.text for data in parts for example in (*data.validation, *data.test)}
    texts |= {turn for text in texts if SEPARATOR in text for turn in text.split(SEPARATOR)}
    return frozenset(mark(text) for text in texts)
