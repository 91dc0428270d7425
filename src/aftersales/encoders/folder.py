"""The folder of a pre-trained encoder: 16-bit weights, tokenizer, how it was made, and its card."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import BertModel, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertPooler

from aftersales.core.files import atomic_folder, write_json, write_text
from aftersales.encoders.load import locate

OBJECTIVE_NAMES = {"mlm": "masked-language modelling", "electra": "replaced-token detection"}


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
    """
    # Classifiers read [CLS] through a pooler, which pre-training does not have: it starts as the identity.
    encoder.pooler = BertPooler(encoder.config)
    torch.nn.init.eye_(encoder.pooler.dense.weight)
    torch.nn.init.zeros_(encoder.pooler.dense.bias)
    encoder.config.hidden_dropout_prob = 0.1
    encoder.config.attention_probs_dropout_prob = 0.1
    tokenizer.backend_tokenizer.no_truncation()  # that of the last call would be saved with it
    with atomic_folder(folder) as aside:
        encoder.cpu().to(torch.float16).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        write_json(aside / HISTORY, made)
        write_text(aside / "README.md", card(made, encoder.num_parameters()))


def _stages(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how an encoder was made, and how the one it went on from was, and so on."""
    return [made, *(_stages(made["started_from"]) if "started_from" in made else [])]


def card(made: dict[str, Any], parameters: int) -> str:
    """Return the card of an encoder as Markdown."""
    config = made["config"]
    shape, corpus = config["architecture"], ", ".join(f"{n} (x {w:g})" for n, w in made["corpus"].items())
    counts: Counter[str] = Counter()
    for one in made["corpus_lines"].values():
        counts.update(one)
    lines = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    words = " of whole words" if config["whole_words"] else ""
    before = ""
    stages = _stages(made)
    if len(stages) > 1:
        seen = sum(one.get("tokens_seen", 0) for one in stages) / 1e6
        before = f"\nIt went on from another encoder, {seen:.1f} M tokens in all; see `started_from` in that file.\n"
    for one in stages:
        if labelled := one.get("config", {}).get("labelled"):
            before += f"\nBeside the text it learned the labels of the public sets {', '.join(labelled['sets'])}.\n"
    guarded = ", ".join(config.get("guarded") or [])
    kept_out = (
        f"Validation and test texts of {guarded} were left out." if guarded else "No text was left out by a list."
    )
    return f"""---
language: zh
library_name: transformers
tags: [after-sales, feature-extraction]
---

# A small Chinese encoder

BERT with {shape["layers"]} layers x {shape["hidden"]}, {shape["heads"]} heads, {shape["vocabulary"]:,} tokens,
{parameters / 1e6:.1f} M parameters in 16 bits. Tokens are single Chinese characters, digits, punctuation and emoji, and
word pieces of Latin letters (`aftersales.encoders.tokenizer`).

Made by `training/pretrain.py`: {OBJECTIVE_NAMES[config["objective"]]}{words},
and a bag-of-words loss that trains [CLS] from step {config["bag_of_words_from"]:,} on; {config["steps"]:,} steps of
{config["batch_size"]} x {config["sequence_length"]} tokens, {made["tokens_seen"] / 1e6:.1f} M tokens in all; loss on
held-out text {made["held_out_loss"]:.3f} nats. All settings: `pretraining.json`.
{before}
Corpus, by how often each file is drawn: {corpus}. Lines: {lines}; fingerprint `{made["corpus_fingerprint"][:16]}`.
{kept_out}
Figures on other sets whose texts stand in the corpus are of an encoder that has read them, though not their labels.

For fine-tuning on short Chinese texts of customers. It has seen little text for its size; measure beside a floor.
"""
