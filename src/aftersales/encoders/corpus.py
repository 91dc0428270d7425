"""Text files for pre-training: cleaned with counts, tokenised once to disk, drawn row by row.

Documents are packed end to end into rows of equal length, so no position is padding. The rows and masks of a step are
functions of (seed, step) alone: training resumed at any step goes on as if it had never stopped, without saved
generator states.
"""

import codecs
import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from aftersales.core.errors import DataError, ModelError
from aftersales.core.files import atomic_folder, sha256_of_file, write_json
from aftersales.encoders.guard import fingerprint_of_marks, mark
from aftersales.encoders.tokenizer import fingerprint_of_vocabulary
from aftersales.text.normalise import MAX_CHARACTERS, normalise

HELD_OUT_PER_THOUSAND = 5
LONGEST_LINE = 1 << 20  # bytes; what follows in the same line is left out
CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that do not begin a character
MOST_TOKENS = 1 << 16  # ids are stored in 16 bits
BATCH_TEXTS, BATCH_CHARACTERS = 4096, 1 << 18  # tokenised at once; a character takes some 200 bytes meanwhile

Segment = Callable[[str], Sequence[str]]


def read_documents(
    path: Path,
    counts: Counter[str] | None = None,
    seen: set[bytes] | None = None,
    guarded: Set[bytes] = frozenset(),
) -> Iterator[str]:
    """Yield the normalised documents of a UTF-8 text file (plain or .xz), one a line, or of a labelled .jsonl file.

    Args:
        path: the file.
        counts: when given, receives how many lines were kept, empty, not UTF-8, no JSON with a text, cut to
            ``MAX_CHARACTERS``, guarded or repeated, and how many characters were cut off.
        seen: when given, marks of documents already read; repeated ones are left out.
        guarded: marks of documents to leave out.

    Raises:
        DataError: the file is missing or cannot be read, or is no .xz file though its name says so.
    """
    if not path.is_file():
        raise DataError(
            f"corpus file {path} does not exist; set corpus.folder to the folder that holds it "
            "(a relative one begins at the project)"
        )
    counts = Counter() if counts is None else counts
    for text in _texts(path, counts):
        found = mark(text)
        if not text:
            counts["empty"] += 1
        elif found in guarded:
            counts["guarded"] += 1
        elif seen is not None and found in seen:
            counts["repeated"] += 1
        else:
            if seen is not None:
                seen.add(found)
            counts["kept"] += 1
            yield text


def _texts(path: Path, counts: Counter[str]) -> Iterator[str]:
    """Yield the normalised text of every line that has one, counting the others and what is cut off."""
    labelled = ".jsonl" in path.suffixes
    try:
        with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
            for line, beyond in _lines(stream):
                try:
                    text, dropped = _beginning(line, beyond, labelled)
                except UnicodeDecodeError:
                    counts["not UTF-8"] += 1
                    continue
                except ValueError:
                    counts["no JSON with a text"] += 1
                    continue
                if dropped:
                    counts["cut"] += 1
                    counts["characters cut off"] += dropped
                yield normalise(text)
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path} is not a whole .xz file ({error}); copy or compress it again") from None
    except OSError as error:
        raise DataError(f"corpus file {path} cannot be read ({error}); copy it again or mend its permissions") from None


def _beginning(line: bytes, beyond: int, labelled: bool) -> tuple[str, int]:
    """Return the first ``MAX_CHARACTERS`` characters of a line's text and the number of those that follow.

    Args:
        line: at most ``LONGEST_LINE`` bytes.
        beyond: characters of the line after these.
        labelled: the line is a row of JSON.

    Raises:
        ValueError: the line is not UTF-8 (UnicodeDecodeError), or no JSON with a text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    written = decoder.decode(line, final=not beyond).rstrip("\r\n")  # only the character at the cut may be half one
    text = _text_of(written) if labelled else written
    beyond += bool(decoder.getstate()[0])
    return text[:MAX_CHARACTERS], max(0, len(text) + beyond - MAX_CHARACTERS)


def _text_of(row: str) -> str:
    """Return the text of a labelled row; ValueError when it has none."""
    try:
        found = json.loads(row)["text"] if row.strip() else ""
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(error) from None
    if not isinstance(found, str):
        raise ValueError("the text is no string")
    return found


def _lines(stream: Any) -> Iterator[tuple[bytes, int]]:
    """Yield of each line ``LONGEST_LINE`` bytes at most and the number of characters after them, in constant memory."""
    while line := stream.readline(LONGEST_LINE):
        beyond, last = 0, line
        while len(last) == LONGEST_LINE and not last.endswith(b"\n"):
            last = stream.readline(LONGEST_LINE)
            beyond += len(last.rstrip(b"\r\n").translate(None, CONTINUATION))
        yield line, beyond


@dataclass(frozen=True)
class TokenStore:
    """Token ids of several sources on disk, as one flat uint16 array a source.

    Attributes:
        train: one array a source, each of shape (tokens,).
        weights: how often each source is drawn, relative to the others.
        held_out: one array of shape (tokens,) over all sources, never trained on.
        fingerprint: SHA-256 over the documents that were read.
        starts: likewise as ``train``, boolean, true where a word starts; None when words were not segmented.
        counts: name of a source -> what ``read_documents`` counted in it.
    """

    train: Sequence[np.ndarray]
    weights: Sequence[float]
    held_out: np.ndarray
    fingerprint: str
    starts: Sequence[np.ndarray] | None
    counts: dict[str, dict[str, int]]


def build_token_store(
    folder: Path,
    sources: Mapping[str, Path],
    weights: Sequence[float],
    tokenizer: PreTrainedTokenizerFast,
    length: int,
    segment: Segment | None,
    guarded: Set[bytes] = frozenset(),
) -> TokenStore:
    """Tokenise ``sources`` into ``folder`` unless it already holds exactly them, and open the result.

    Args:
        folder: where the arrays are kept.
        sources: text files by the name under which each is counted.
        weights: how often each is drawn, relative to the others.
        tokenizer: of the encoder.
        length: tokens of a training row.
        segment: cuts a text into words whose starts are kept, for masking whole words.
        guarded: marks of documents to leave out.

    Raises:
        DataError: a source, or the held-out part, is not longer than one row of ``length`` tokens.
        ModelError: the vocabulary is too large for 16-bit ids.
        StorageError: the arrays cannot be written.
    """
    described = folder / "store.json"
    if len(tokenizer) > MOST_TOKENS:
        raise ModelError(f"the vocabulary has {len(tokenizer):,} tokens, more than {MOST_TOKENS:,}; take a smaller one")
    wanted = [f"{name} {sha256_of_file(path) if path.is_file() else ''}" for name, path in sources.items()]
    wanted += [f"vocabulary {fingerprint_of_vocabulary(tokenizer)}", f"words {segment is not None}"]
    if guarded:
        wanted.append(f"guarded {fingerprint_of_marks(guarded)}")
    if not (described.is_file() and json.loads(described.read_text())["sources"] == wanted):
        with atomic_folder(folder) as aside:
            fingerprint, counts = _write_tokens(aside, sources, tokenizer, segment, guarded)
            write_json(aside / "store.json", {"sources": wanted, "fingerprint": fingerprint, "counts": counts})
    names = [f"{index}.bin" for index in range(len(sources))]
    store = json.loads(described.read_text(encoding="utf-8"))
    for file, name in zip((*names, "held_out.bin"), (*sources, None), strict=True):
        tokens = (folder / file).stat().st_size // np.dtype(np.uint16).itemsize
        if tokens <= length:
            raise _too_short(name, tokens, length, store["counts"])
    return TokenStore(
        train=[np.memmap(folder / name, dtype=np.uint16, mode="r") for name in names],
        weights=weights,
        held_out=np.fromfile(folder / "held_out.bin", dtype=np.uint16),
        fingerprint=store["fingerprint"],
        starts=[np.memmap(folder / f"{name}.starts", dtype=bool, mode="r") for name in names] if segment else None,
        counts=store["counts"],
    )


def _write_tokens(
    folder: Path,
    sources: Mapping[str, Path],
    tokenizer: PreTrainedTokenizerFast,
    segment: Segment | None,
    guarded: Set[bytes],
) -> tuple[str, dict[str, dict[str, int]]]:
    """Write the arrays of ``TokenStore`` and return the fingerprint and the counts of each file."""
    digest, seen = hashlib.sha256(), set[bytes]()
    held_out: list[int] = []
    counts: dict[str, dict[str, int]] = {}
    for index, (name, path) in enumerate(sources.items()):
        counted: Counter[str] = Counter()
        with (folder / f"{index}.bin").open("wb") as tokens, (folder / f"{index}.bin.starts").open("wb") as starts:
            rows = _tokenise(read_documents(path, counted, seen, guarded), tokenizer, segment)
            for text, ids, begins in tqdm(rows, desc=f"tokenising {name}", unit=" texts", mininterval=5):
                hashed = hashlib.sha256(text.encode()).digest()
                digest.update(hashed)
                if int.from_bytes(hashed[:4], "big") % 1000 < HELD_OUT_PER_THOUSAND:
                    held_out.extend(ids)
                else:
                    tokens.write(np.asarray(ids, dtype=np.uint16).tobytes())
                    starts.write(np.asarray(begins, dtype=bool).tobytes())
        counts[name] = dict(counted)
    (folder / "held_out.bin").write_bytes(np.asarray(held_out, dtype=np.uint16).tobytes())
    return digest.hexdigest(), counts


def _tokenise(
    documents: Iterator[str], tokenizer: PreTrainedTokenizerFast, segment: Segment | None
) -> Iterator[tuple[str, list[int], list[bool]]]:
    """Yield each document with its ids, ended by [SEP], and whether a word starts at each."""
    for batch in _batches(documents):
        encoded = tokenizer(batch, add_special_tokens=False, return_offsets_mapping=segment is not None, verbose=False)
        for row, text in enumerate(batch):
            ids = [*encoded["input_ids"][row], tokenizer.sep_token_id]
            begins: list[bool] = []
            if segment is not None:
                edges = {0, *accumulate(len(word) for word in segment(text))}
                begins = [*(first in edges for first, _ in encoded["offset_mapping"][row]), True]
            yield text, ids, begins


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Yield the documents in lists that are short in characters too, because a document may be a whole book."""
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if len(batch) >= BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _too_short(name: str | None, tokens: int, length: int, counts: Mapping[str, Mapping[str, int]]) -> DataError:
    """Return the error of a source, or of the held-out part, that gives no row, with what became of its lines."""
    counted = Counter[str]()
    for one in counts.values() if name is None else [counts[name]]:
        counted.update(one)
    lines = ", ".join(f"{count:,} {what}" for what, count in counted.items() if count) or "none"
    which = f"the held-out part ({HELD_OUT_PER_THOUSAND} of 1,000 documents)" if name is None else f"corpus file {name}"
    way_out = "save the text as UTF-8, " if counted["not UTF-8"] else ""
    return DataError(
        f"{which} has {tokens} tokens, more than sequence_length={length} are needed; lines: {lines}; "
        f"{way_out}give more text or a shorter sequence_length"
    )


def rows_of_step(
    store: TokenStore, batch_size: int, length: int, seed: int, step: int, cls_id: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows of a step, each starting with [CLS].

    Returns:
        Token ids of shape (batch_size, length), int64, and, when the store knows words, where words start.
    """
    random = np.random.default_rng((seed, step))
    shares = np.asarray(store.weights) / np.sum(store.weights)
    rows = np.full((batch_size, length), cls_id, dtype=np.int64)
    starts = np.ones(rows.shape, dtype=bool) if store.starts is not None else None
    for row, source in enumerate(random.choice(len(shares), size=batch_size, p=shares)):
        tokens = store.train[source]
        start = random.integers(0, len(tokens) - length)
        rows[row, 1:] = tokens[start : start + length - 1]
        if starts is not None and store.starts is not None:
            starts[row, 1:] = store.starts[source][start : start + length - 1]
    return rows, starts


def hidden_positions(
    rows: np.ndarray,
    starts: np.ndarray | None,
    rate: float,
    special: Sequence[int],
    seed: int,
    step: int,
    processes: int = 1,
) -> np.ndarray:
    """Choose about ``rate`` of the ordinary tokens; with ``starts``, whole words at a time (Cui et al. 2021).

    Every process, which takes each ``processes``-th row, gets at least one: the mean loss of none is no number.

    Returns:
        Boolean, of the shape of ``rows``.
    """
    drawn = np.random.default_rng((seed, step, 1)).random(rows.shape)
    if starts is not None:
        # Every token of a word takes the draw of the word's first one.
        first = np.maximum.accumulate(np.where(starts, np.arange(rows.shape[1]), 0), axis=1)
        drawn = np.take_along_axis(drawn, first, axis=1)
    ordinary = ~np.isin(rows, special)
    hidden = (drawn < rate) & ordinary
    for mine in (slice(process, None, processes) for process in range(processes)):
        if not hidden[mine].any() and ordinary[mine].any():
            hidden[mine] = ordinary[mine] & (drawn[mine] == drawn[mine][ordinary[mine]].min())
    return np.asarray(hidden)


def mask_rows(
    rows: np.ndarray, hidden: np.ndarray, vocabulary: int, special: Sequence[int], mask_id: int, seed: int, step: int
) -> np.ndarray:
    """Hide positions: 80 % become [MASK], 10 % another token, 10 % stay (Devlin et al. 2019, section 3.1)."""
    random = np.random.default_rng((seed, step, 2))
    kind = random.random(rows.shape)
    inputs = np.where(hidden & (kind < 0.8), mask_id, rows)
    swapped = hidden & (kind >= 0.8) & (kind < 0.9)
    return np.where(swapped, random.integers(len(special), vocabulary, rows.shape), inputs)


def jieba_words() -> Segment:
    """Return jieba's segmentation into words."""
    import jieba  # here, because few runs want it and it takes a second

    jieba.setLogLevel("ERROR")
    words: Segment = jieba.lcut
    return words
