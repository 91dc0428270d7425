"""The one normal form of a text. Pre-training, fine-tuning, evaluation and serving all pass through it."""

import re
import unicodedata

# Longest text accepted anywhere; a customer message is 8 to 32 characters, a formal complaint a few hundred.
MAX_CHARACTERS = 10_000

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"  # control characters
    "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # zero width, direction marks
    "\ufe00-\ufe0f\ud800-\udfff]"  # variation selectors, lone surrogates
)
# Arabic ligatures of whole sentences: NFKC writes them out as 8 and 18 characters, which costs a server dearly.
_SENTENCES = re.compile("[\ufdfa\ufdfb]")
_SPACE = re.compile(r"\s+")
_LONG_RUN = re.compile(r"(.)\1{3,}", re.DOTALL)


def normalise(text: str) -> str:
    """Return the normal form: NFKC (full width to half width), no invisible characters, single spaces, and
    runs of one character cut to three (啊啊啊啊啊 and 啊啊啊 say the same).

    Digits are left as they are, because 1000000 and 1000 do not say the same. The function is idempotent.
    """
    text = _SENTENCES.sub(" ", _INVISIBLE.sub("", text))
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = _SPACE.sub(" ", text).strip()
    return _LONG_RUN.sub(lambda run: run[0] if run[1].isdigit() else run[1] * 3, text)


def key(text: str) -> str:
    """Return the key under which two texts count as one: word characters only, lower case.

    A text without word characters (👍👍) is its own key. The function works on the raw text, so that splits by key
    agree with those other people make from the same rule.
    """
    return re.sub(r"\W", "", text).lower() or text
