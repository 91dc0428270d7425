"""The vocabulary and tokenizer of our own encoders, made from a corpus.

Every character outside Latin words is a token of its own (Chinese, punctuation, emoji, single digits), so that a typo
or a homophone changes one token only; Latin letters form words, or pieces of them where the word is rare. The result
is one ``tokenizer.json`` that transformers and the torch-free runtime read alike.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from string import ascii_lowercase

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# In every vocabulary, however rare in the corpus: customers end half a sentence with one, and it carries the mood.
EMOJI = (
    "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩🤔🤨😐😑😶🙄😏😣😥😮🤐😯😪😫😴😌😛😜😝🤤😒😓😔😕🙃🤑😲🙁😖😞😟"
    "😤😢😭😦😧😨😩🤯😬😰😱🥵🥶😳🤪😵😡😠🤬😷🤒🤕🤢🤮🤧😇🥳🥺🤡🤥🤫🤭🧐💩👻💀👍👎👌✌🤞🤟🤙👈👉👆👇👋👏🙌👐🤝🙏💪"
    "❤🧡💛💚💙💜🖤💔💕💖💗💘💝🌹🥀🌸🌺🎉🎁🔥✨⭐🌟💯💢💥💦💤📦🚚📱💻🛒💰💸🧧✅❌❗❓⚠🐶🐱🐷🍎🍊🍉☕🎂🌞🌧"
)


LATIN_WORD = re.compile("[a-z\u00df-\u024f]+")
LATIN_SHARE = 8  # one token in eight is kept for words of Latin letters
MIN_COUNT = 3


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer with at most ``vocabulary_size`` tokens from normalised ``texts``.

    The vocabulary is the special tokens, the emoji, the letters (alone and inside a word), the commonest characters
    and the commonest Latin words. Ties are broken by the token itself, so equal texts give equal vocabularies, which
    the trainers of the tokenizers library do not promise.

    Args:
        texts: documents, already through ``aftersales.text.normalise``.
        vocabulary_size: tokens including the five special ones; rarer characters become ``[UNK]``.
        max_length: longest sequence the encoder accepts, in tokens.
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        lowered = unicodedata.normalize("NFKC", text).lower()
        words.update(LATIN_WORD.findall(lowered))
        characters.update(LATIN_WORD.sub("", lowered))
    letters = sorted({letter for word in words for letter in word if words[word] >= MIN_COUNT} | set(ascii_lowercase))
    fixed = [*SPECIAL_TOKENS, *EMOJI, *letters, *(f"##{letter}" for letter in letters)]
    commonest = [character for character in _ranked(characters) if not character.isspace()]
    room = vocabulary_size - len(fixed) - vocabulary_size // LATIN_SHARE
    tokens = dict.fromkeys([*fixed, *commonest[: max(0, room)], *_ranked(words)])
    vocabulary = {token: number for number, token in enumerate(list(tokens)[:vocabulary_size])}

    model = models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=40)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\p{Latin}]"), "isolated"),
        ]
    )
    cls, sep = tokenizer.token_to_id(CLS), tokenizer.token_to_id(SEP)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, cls), (SEP, sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
    )


def fingerprint_of_vocabulary(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the SHA-256 of all tokens with their ids."""
    return sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _ranked(counts: Counter[str]) -> list[str]:
    """Return what occurs often enough, the commonest first, ties in the order of the strings."""
    return sorted((one for one, count in counts.items() if count >= MIN_COUNT), key=lambda one: (-counts[one], one))
