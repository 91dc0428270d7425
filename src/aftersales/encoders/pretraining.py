"""Pre-training of an encoder by masked-language modelling (Devlin et al. 2019, section 3.1).

Documents are packed end to end into rows of equal length, so no position is padding. The rows, masks and
learning rate of a step are functions of (seed, step) alone: training resumed at any step goes on as if it had
never stopped, without saved generator states.
"""

import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from aftersales.core.errors import DataError
from aftersales.core.files import atomic_folder, sha256_of_file
from aftersales.text.normalise import MAX_CHARACTERS, normalise

HELD_OUT_PER_THOUSAND = 5


def read_documents(path: Path) -> Iterator[str]:
    """Yield the normalised documents of a UTF-8 text file (plain or .xz), one a line; empty ones are skipped.

    Raises:
        DataError: the file is missing or is not UTF-8 (the line is named).
    """
    if not path.is_file():
        raise DataError(f"corpus file {path} does not exist; set corpus.folder to the folder that holds it")
    with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = normalise(line.decode("utf-8")[:MAX_CHARACTERS])
            except UnicodeDecodeError as error:
                raise DataError(f"{path} line {number} is not UTF-8 ({error.reason}); convert the file first") from None
            if text:
                yield text


@dataclass(frozen=True)
class TokenStore:
    """Token ids of several sources on disk, as one flat uint16 array a source.

    Attributes:
        train: one array a source, each of shape (tokens,).
        held_out: one array of shape (tokens,) over all sources, never trained on.
        fingerprint: SHA-256 over the documents that were read.
    """

    train: Sequence[np.ndarray]
    held_out: np.ndarray
    fingerprint: str


def build_token_store(
    folder: Path, sources: Sequence[Path], tokenizer: PreTrainedTokenizerFast, length: int
) -> TokenStore:
    """Tokenise ``sources`` into ``folder`` unless it already holds exactly them, and open the result.

    Raises:
        DataError: a source, or the held-out part, is not longer than one row of ``length`` tokens.
    """
    described = folder / "store.json"
    wanted = [f"{source.name} {sha256_of_file(source) if source.is_file() else ''}" for source in sources]
    if not (described.is_file() and json.loads(described.read_text())["sources"] == wanted):
        with atomic_folder(folder) as aside:
            digest = hashlib.sha256()
            held_out: list[int] = []
            for index, source in enumerate(sources):
                with (aside / f"{index}.bin").open("wb") as stream:
                    for ids, kept_back in _tokenise(source, tokenizer, digest):
                        if kept_back:
                            held_out.extend(ids)
                        else:
                            stream.write(np.asarray(ids, dtype=np.uint16).tobytes())
            (aside / "held_out.bin").write_bytes(np.asarray(held_out, dtype=np.uint16).tobytes())
            (aside / "store.json").write_text(json.dumps({"sources": wanted, "fingerprint": digest.hexdigest()}))
    for name in (*(f"{index}.bin" for index in range(len(sources))), "held_out.bin"):
        tokens = (folder / name).stat().st_size // np.dtype(np.uint16).itemsize
        if tokens <= length:
            which = "the held-out part" if name == "held_out.bin" else str(sources[int(name.removesuffix(".bin"))])
            raise DataError(
                f"{which} has {tokens} tokens, more than sequence_length={length} are needed; "
                "give more text or a shorter sequence_length"
            )
    return TokenStore(
        train=[np.memmap(folder / f"{index}.bin", dtype=np.uint16, mode="r") for index in range(len(sources))],
        held_out=np.fromfile(folder / "held_out.bin", dtype=np.uint16),
        fingerprint=json.loads(described.read_text())["fingerprint"],
    )


def _tokenise(
    source: Path, tokenizer: PreTrainedTokenizerFast, digest: "hashlib._Hash"
) -> Iterator[tuple[list[int], bool]]:
    """Yield the ids of each document, ended by [SEP], and whether its hash puts it into the held-out part."""
    batch: list[str] = []

    def flush() -> Iterator[tuple[list[int], bool]]:
        encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
        for text, ids in zip(batch, encoded, strict=True):
            hashed = hashlib.sha256(text.encode()).digest()
            digest.update(hashed)
            kept_back = int.from_bytes(hashed[:4], "big") % 1000 < HELD_OUT_PER_THOUSAND
            yield [*ids, tokenizer.sep_token_id], kept_back
        batch.clear()

    for text in read_documents(source):
        batch.append(text)
        if len(batch) == 4096:
            yield from flush()
    if batch:
        yield from flush()


def rows_of_step(
    store: TokenStore, weights: Sequence[float], batch_size: int, length: int, seed: int, step: int, cls_id: int
) -> np.ndarray:
    """Return the token ids of a step, shape (batch_size, length), int64; each row starts with [CLS]."""
    random = np.random.default_rng((seed, step))
    shares = np.asarray(weights) / np.sum(weights)
    rows = np.empty((batch_size, length), dtype=np.int64)
    for row, source in enumerate(random.choice(len(shares), size=batch_size, p=shares)):
        tokens = store.train[source]
        start = random.integers(0, len(tokens) - length)
        rows[row, 0] = cls_id
        rows[row, 1:] = tokens[start : start + length - 1]
    return rows


def mask_rows(
    rows: np.ndarray, rate: float, vocabulary: int, special: Sequence[int], mask_id: int, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hide ``rate`` of the ordinary tokens: 80 % become [MASK], 10 % another token, 10 % stay.

    Returns:
        The input ids and a boolean array of the hidden positions, both of the shape of ``rows``.
    """
    random = np.random.default_rng((seed, step, 1))
    hidden = (random.random(rows.shape) < rate) & ~np.isin(rows, special)
    kind = random.random(rows.shape)
    inputs = np.where(hidden & (kind < 0.8), mask_id, rows)
    swapped = hidden & (kind >= 0.8) & (kind < 0.9)
    inputs = np.where(swapped, random.integers(len(special), vocabulary, rows.shape), inputs)
    return inputs, hidden


def start_local(model: BertForMaskedLM, offsets: Sequence[int] = (-1, 1, -2, 2), sharpness: float = 0.8) -> None:
    """Start the heads of the first layer as readers of the tokens next to them.

    A fresh model spends thousands of steps predicting from character frequencies before a head has found out what a
    neighbour is. Here the first dimensions carry the position alone, as sinusoids (Vaswani et al. 2017, section 3.5),
    and head h asks in them for the position ``offsets[h]`` away: its keys are the positions rotated by that offset.
    Everything stays trainable, and the model stays an ordinary BERT. The idea of starting attention from the pattern
    it will learn is that of Trockman and Kolter 2023 (mimetic initialisation).
    """
    embeddings, attention = model.bert.embeddings, model.bert.encoder.layer[0].attention.self
    width = attention.attention_head_size
    table = embeddings.position_embeddings.weight
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / model.config.hidden_size)
    angles = torch.arange(len(table))[:, None] * rates
    with torch.no_grad():
        embeddings.word_embeddings.weight[:, :width] = 0.0
        table[:, width:] *= 0.1
        table[:, 0:width:2] = 2 * model.config.initializer_range * torch.sin(angles)
        table[:, 1:width:2] = 2 * model.config.initializer_range * torch.cos(angles)
        for head, offset in zip(range(attention.num_attention_heads), offsets, strict=False):
            rotation = torch.zeros(width, width)
            even, odd = torch.arange(0, width, 2), torch.arange(1, width, 2)
            rotation[even, even] = rotation[odd, odd] = torch.cos(rates * offset)
            rotation[odd, even] = torch.sin(rates * offset)
            rotation[even, odd] = -torch.sin(rates * offset)
            rows = slice(head * width, (head + 1) * width)
            attention.query.weight[rows, :width] += sharpness * torch.eye(width)
            attention.key.weight[rows, :width] += sharpness * rotation


def pretraining_loss(
    model: BertForMaskedLM, inputs: np.ndarray, rows: np.ndarray, hidden: np.ndarray, bag_of_words: float = 0.0
) -> torch.Tensor:
    """Return the mean cross-entropy at the hidden positions, plus ``bag_of_words`` times the loss of [CLS].

    That second loss asks the state of [CLS] which tokens stand in the row, each counted once (Ma et al. 2024, "Drop
    your Decoder", section 3.2). Masked-language modelling alone never trains [CLS], which is what a classifier reads.

    The vocabulary projection runs at these positions only: at 8,192 tokens and 256 units it would otherwise
    cost two thirds as much as the four layers.
    """
    device = model.device
    states = model.bert(input_ids=torch.from_numpy(inputs).to(device)).last_hidden_state
    chosen = torch.from_numpy(hidden).to(device)
    tokens = torch.from_numpy(rows).to(device)
    loss = functional.cross_entropy(model.cls(states[chosen]).float(), tokens[chosen])
    if not bag_of_words:
        return loss
    present = torch.zeros(len(rows), model.config.vocab_size, device=device).scatter_(1, tokens[:, 1:], 1.0)
    wanted = present / present.sum(dim=1, keepdim=True)
    return loss + bag_of_words * functional.cross_entropy(model.cls(states[:, 0]).float(), wanted)


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Warm up linearly, hold, and fall linearly to zero over the last ``decay`` steps (Hu et al. 2024, WSD)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * min(1.0, max(0.0, (steps - step) / decay))
