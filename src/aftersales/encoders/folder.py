"""The folder of a pre-trained encoder: 16-bit weights, tokenizer, how it was made, and its card."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import BertModel, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertPooler

from aftersales.core.files import atomic_folder, unwritable, write_json, write_text
from aftersales.encoders.load import locate
from aftersales.encoders.objectives import REPLACED_WEIGHT

OBJECTIVE_NAMES = {"mlm": "masked-language modelling", "electra": "replaced-token detection"}
LOSS_UNITS = {
    "mlm": "nats a hidden token",
    "electra": f"(the generator's nats a hidden token and {REPLACED_WEIGHT:g} times the detector's a token)",
}

HISTORY = "pretraining.json"


def history(encoder: str) -> dict[str, Any]:
    """Return how an encoder was made as far as its folder says, for the card of one that goes on from it."""
    said = Path(locate(encoder)) / HISTORY
    return json.loads(said.read_text(encoding="utf-8")) if said.is_file() else {"encoder": encoder}


def write_encoder(folder: Path, encoder: BertModel, tokenizer: PreTrainedTokenizerFast, made: dict[str, Any]) -> None:
    """Write an encoder so that ``from_pretrained`` loads it.

    Args:
        folder: replaced as a whole.
        encoder: trained, without a pooler.
        tokenizer: its tokenizer.
        made: objective, held-out loss, corpus and settings; the card is made of them.

    Raises:
        StorageError: the folder cannot be written.
    """
    # Classifiers read [CLS] through a pooler, which pre-training does not have: it starts as the identity.
    encoder.pooler = BertPooler(encoder.config)
    torch.nn.init.eye_(encoder.pooler.dense.weight)
    torch.nn.init.zeros_(encoder.pooler.dense.bias)
    encoder.config.hidden_dropout_prob = 0.1
    encoder.config.attention_probs_dropout_prob = 0.1
    tokenizer.backend_tokenizer.no_truncation()  # that of the last call would be saved with it
    with atomic_folder(folder) as aside:
        try:
            encoder.cpu().to(torch.float16).save_pretrained(aside)
        except SafetensorError as error:  # so it reports a full disk
            raise unwritable(folder, error) from None
        tokenizer.save_pretrained(aside)
        write_json(aside / HISTORY, made)
        write_text(aside / "README.md", card(made, encoder.num_parameters(), len(tokenizer)))


def _stages(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how an encoder was made, and how the one it went on from was, and so on."""
    return [made, *(_stages(made["started_from"]) if "started_from" in made else [])]


def card(made: dict[str, Any], parameters: int, vocabulary: int) -> str:
    """Return the card of an encoder of so many parameters and tokens in its vocabulary as Markdown."""
    shape = made["config"]["architecture"]
    stages = "\n".join(f"{number}. {_told(one)}" for number, one in enumerate(reversed(_stages(made)), 1))
    return f"""---
language: zh
library_name: transformers
tags: [after-sales, feature-extraction]
---

# A small Chinese encoder

BERT with {shape["layers"]} layers x {shape["hidden"]}, {shape["heads"]} heads, {vocabulary:,} tokens,
{parameters / 1e6:.1f} M parameters in 16 bits. Tokens are single Chinese characters, digits, punctuation and emoji, and
word pieces of Latin letters (`aftersales.encoders.tokenizer`).

Made by `training/pretrain.py`; all settings are in `pretraining.json`.

{stages}

What a stage did not leave out it has read: figures on sets whose texts stand in its corpus are of an encoder that knows
them.

For fine-tuning on short Chinese texts of customers. It has seen little text for its size; measure beside a floor.
"""


def _told(stage: dict[str, Any]) -> str:
    """Say in one paragraph how an encoder went through a stage."""
    if "config" not in stage:
        return f"The encoder `{stage['encoder']}`."
    config, counts = stage["config"], Counter[str]()
    for one in stage.get("corpus_lines", {}).values():
        counts.update(one)
    words = " of whole words" if config.get("whole_words") else ""
    bag = f", and a bag-of-words loss that trains [CLS] from step {config['bag_of_words_from']:,} on"
    files = ", ".join(f"{name} (x {weight:g})" for name, weight in stage["corpus"].items())
    lines = f" Lines: {', '.join(f'{count:,} {what}' for what, count in counts.items())}." if counts else ""
    sets, guarded = (config.get("labelled") or {}).get("sets", {}), config.get("guarded") or []
    learned = stage.get("labelled_tokens_seen")
    beside = f" ({learned / 1e6:.1f} M tokens)" if learned else ""
    labelled = (
        f" Beside the text it learned the training rows of {', '.join(sets)} with their labels{beside}." if sets else ""
    )
    kept_out = (
        f"Validation and test texts of {', '.join(guarded)} were left out." if guarded else "No list left texts out."
    )
    objective = config.get("objective", "mlm")
    task = OBJECTIVE_NAMES[objective].capitalize() + words + (bag if config["bag_of_words"] else "")
    return (
        f"{task}; {config['steps']:,} steps of {config['batch_size']} x {config['sequence_length']} tokens, "
        f"{stage['tokens_seen'] / 1e6:.1f} M tokens; loss on held-out text "
        f"{stage['held_out_loss']:.3f} {LOSS_UNITS[objective]}. "
        f"Files by how often each is drawn: {files}; fingerprint `{stage['corpus_fingerprint'][:16]}`."
        f"{lines}{labelled} {kept_out}"
    )
