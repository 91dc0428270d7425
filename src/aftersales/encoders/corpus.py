"""Text files for pre-training: cleaned with counts, tokenised once to disk, drawn row by row.

Documents are packed end to end into rows of equal length, so no position is padding. The rows and masks of a step are
functions of (seed, step) alone: training resumed at any step goes on as if it had never stopped, without saved
generator states.
"""

import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from aftersales.core.errors import DataError
from aftersales.core.files import atomic_folder, sha256_of_file, write_json
from aftersales.encoders.guard import mark
from aftersales.text.normalise import MAX_CHARACTERS, normalise

HELD_OUT_PER_THOUSAND = 5
LONGEST_LINE = 1 << 20  # bytes; what follows in the same line is left out

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
        counts: when given, receives how many lines were kept, empty, not UTF-8, no JSON with a text, cut or repeated.
        seen: when given, marks of documents already read; repeated ones are left out.
        guarded: marks of documents to leave out.

    Raises:
        DataError: the file is missing, or no .xz file though its name says so.
    """
    if not path.is_file():
        raise DataError(f"corpus file {path} does not exist; set corpus.folder to the folder that holds it")
    counts = Counter() if counts is None else counts
    try:
        with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
            for line, cut in _lines(stream):
                try:
                    written = line.decode("utf-8", "ignore" if cut else "strict")
                    text = normalise((_text_of(written) if ".jsonl" in path.suffixes else written)[:MAX_CHARACTERS])
                except UnicodeDecodeError:
                    counts["not UTF-8"] += 1
                    continue
                except ValueError:
                    counts["no JSON with a text"] += 1
                    continue
                counts["cut"] += cut or len(line) > 4 * MAX_CHARACTERS
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
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path} is not a whole .xz file ({error}); copy or compress it again") from None


def _text_of(row: str) -> str:
    """Return the text of a labelled row; ValueError when it has none."""
    try:
        found = json.loads(row)["text"] if row.strip() else ""
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(error) from None
    if not isinstance(found, str):
        raise ValueError("the text is no string")
    return found


def shown(source: Path) -> str:
    """Return the name under which a source is counted; every task calls its rows ``train.jsonl``."""
    return f"{source.parent.name}/{source.name}" if source.suffix == ".jsonl" else source.name


def _lines(stream: Any) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, at most ``LONGEST_LINE`` bytes of it, and whether it was longer, in constant memory."""
    while line := stream.readline(LONGEST_LINE):
        cut = not line.endswith(b"\n") and len(line) == LONGEST_LINE
        rest = line
        while cut and rest and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE)
        yield line, cut


@dataclass(frozen=True)
class TokenStore:
    """Token ids of several sources on disk, as one flat uint16 array a source.

    Attributes:
        train: one array a source, each of shape (tokens,).
        weights: how often each source is drawn, relative to the others.
        held_out: one array of shape (tokens,) over all sources, never trained on.
        fingerprint: SHA-256 over the documents that were read.
        starts: likewise as ``train``, boolean, true where a word starts; None when words were not segmented.
        counts: file name -> how many lines were kept, empty, not UTF-8, cut or repeated.
    """

    train: Sequence[np.ndarray]
    weights: Sequence[float]
    held_out: np.ndarray
    fingerprint: str
    starts: Sequence[np.ndarray] | None
    counts: dict[str, dict[str, int]]


def build_token_store(
    folder: Path,
    sources: Sequence[Path],
    weights: Sequence[float],
    tokenizer: PreTrainedTokenizerFast,
    length: int,
    segment: Segment | None,
    guarded: Set[bytes] = frozenset(),
) -> TokenStore:
    """Tokenise ``sources`` into ``folder`` unless it already holds exactly them, and open the result.

    Args:
        folder: where the arrays are kept.
        sources: text files.
        weights: how often each is drawn, relative to the others.
        tokenizer: of the encoder.
        length: tokens of a training row.
        segment: cuts a text into words whose starts are kept, for masking whole words.
        guarded: marks of documents to leave out.

    Raises:
        DataError: a source, or the held-out part, is not longer than one row of ``length`` tokens.
    """
    described = folder / "store.json"
    wanted = [f"{shown(source)} {sha256_of_file(source) if source.is_file() else ''}" for source in sources]
    vocabulary = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
    wanted += [f"vocabulary {vocabulary}", f"words {segment is not None}"]
    if guarded:
        wanted.append(f"guarded {hashlib.sha256(b''.join(sorted(guarded))).hexdigest()}")
    if not (described.is_file() and json.loads(described.read_text())["sources"] == wanted):
        with atomic_folder(folder) as aside:
            fingerprint, counts = _write_tokens(aside, sources, tokenizer, segment, guarded)
            write_json(aside / "store.json", {"sources": wanted, "fingerprint": fingerprint, "counts": counts})
    names = [f"{index}.bin" for index in range(len(sources))]
    for name in (*names, "held_out.bin"):
        tokens = (folder / name).stat().st_size // np.dtype(np.uint16).itemsize
        if tokens <= length:
            which = "the held-out part" if name == "held_out.bin" else str(sources[names.index(name)])
            raise DataError(
                f"{which} has {tokens} tokens, more than sequence_length={length} are needed; "
                "give more text or a shorter sequence_length"
            )
    store = json.loads(described.read_text())
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
    sources: Sequence[Path],
    tokenizer: PreTrainedTokenizerFast,
    segment: Segment | None,
    guarded: Set[bytes],
) -> tuple[str, dict[str, dict[str, int]]]:
    """Write the arrays of ``TokenStore`` and return the fingerprint and the counts of each file."""
    digest, seen = hashlib.sha256(), set[bytes]()
    held_out: list[int] = []
    counts: dict[str, dict[str, int]] = {}
    for index, source in enumerate(sources):
        counted: Counter[str] = Counter()
        with (folder / f"{index}.bin").open("wb") as tokens, (folder / f"{index}.bin.starts").open("wb") as starts:
            rows = _tokenise(read_documents(source, counted, seen, guarded), tokenizer, segment)
            for text, ids, begins in tqdm(rows, desc=f"tokenising {shown(source)}", unit=" texts", mininterval=5):
                hashed = hashlib.sha256(text.encode()).digest()
                digest.update(hashed)
                if int.from_bytes(hashed[:4], "big") % 1000 < HELD_OUT_PER_THOUSAND:
                    held_out.extend(ids)
                else:
                    tokens.write(np.asarray(ids, dtype=np.uint16).tobytes())
                    starts.write(np.asarray(begins, dtype=bool).tobytes())
        counts[shown(source)] = dict(counted)
    (folder / "held_out.bin").write_bytes(np.asarray(held_out, dtype=np.uint16).tobytes())
    return digest.hexdigest(), counts


def _tokenise(
    documents: Iterator[str], tokenizer: PreTrainedTokenizerFast, segment: Segment | None
) -> Iterator[tuple[str, list[int], list[bool]]]:
    """Yield each document with its ids, ended by [SEP], and whether a word starts at each."""
    while batch := [text for _, text in zip(range(4096), documents, strict=False)]:
        encoded = tokenizer(batch, add_special_tokens=False, return_offsets_mapping=segment is not None, verbose=False)
        for row, text in enumerate(batch):
            ids = [*encoded["input_ids"][row], tokenizer.sep_token_id]
            begins: list[bool] = []
            if segment is not None:
                edges = {0}
                for word in segment(text):
                    edges.add(max(edges) + len(word))
                begins = [*(first in edges for first, _ in encoded["offset_mapping"][row]), True]
            yield text, ids, begins


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
    rows: np.ndarray, starts: np.ndarray | None, rate: float, special: Sequence[int], seed: int, step: int
) -> np.ndarray:
    """Choose about ``rate`` of the ordinary tokens; with ``starts``, whole words at a time (Cui et al. 2021).

    Returns:
        Boolean, of the shape of ``rows``.
    """
    drawn = np.random.default_rng((seed, step, 1)).random(rows.shape)
    if starts is not None:
        # Every token of a word takes the draw of the word's first one.
        first = np.maximum.accumulate(np.where(starts, np.arange(rows.shape[1]), 0), axis=1)
        drawn = np.take_along_axis(drawn, first, axis=1)
    return np.asarray((drawn < rate) & ~np.isin(rows, special))


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
    """Return jieba's segmentation into words.

    Raises:
        DataError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError:
        raise DataError("whole_words needs the package jieba: pip install jieba, or set whole_words=false") from None
    jieba.setLogLevel("ERROR")
    words: Segment = jieba.lcut
    return words
