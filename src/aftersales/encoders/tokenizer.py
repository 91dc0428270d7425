"""The vocabulary and tokenizer of our own encoders, made from a corpus.

Every character outside Latin words is a token of its own (Chinese, punctuation, emoji, single digits), so that
a typo or a homophone changes one token only; Latin letters form word pieces (Schuster and Nakajima 2012, as in
BERT). The result is one ``tokenizer.json`` that transformers and the torch-free runtime read alike.
"""

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# In every vocabulary, however rare in the corpus: customers end half a sentence with one, and it carries the mood.
EMOJI = (
    "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩🤔🤨😐😑😶🙄😏😣😥😮🤐😯😪😫😴😌😛😜😝🤤😒😓😔😕🙃🤑😲🙁😖😞😟"
    "😤😢😭😦😧😨😩🤯😬😰😱🥵🥶😳🤪😵😡😠🤬😷🤒🤕🤢🤮🤧😇🥳🥺🤡🤥🤫🤭🧐💩👻💀👍👎👌✌🤞🤟🤙👈👉👆👇👋👏🙌👐🤝🙏💪"
    "❤🧡💛💚💙💜🖤💔💕💖💗💘💝🌹🥀🌸🌺🎉🎁🔥✨⭐🌟💯💢💥💦💤📦🚚📱💻🛒💰💸🧧✅❌❗❓⚠🐶🐱🐷🍎🍊🍉☕🎂🌞🌧"
)


def train_tokenizer(texts: Iterator[str], vocabulary_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer with at most ``vocabulary_size`` tokens from normalised ``texts``.

    Args:
        texts: documents, already through ``aftersales.text.normalise``.
        vocabulary_size: tokens including the five special ones; rarer characters become ``[UNK]``.
        max_length: longest sequence the encoder accepts, in tokens.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\p{Latin}]"), "isolated"),
        ]
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=3,
        limit_alphabet=vocabulary_size - 1024,
        initial_alphabet=list(EMOJI),
        special_tokens=list(SPECIAL_TOKENS),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
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
