"""Score a table chunk by chunk. A chunk's answers are kept as soon as they are there, so a run that was stopped
goes on where it was; the target appears at the end, whole.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
from tqdm import tqdm

from aftersales.core.errors import DataError
from aftersales.core.files import sha256_of_file, write_json, write_text
from aftersales.corpora.tables import Row, read_rows, schema_of, table_format, write_rows
from aftersales.runtime.classifier import Classifier
from aftersales.text.normalise import MAX_CHARACTERS, normalise

CHUNK = 1024
ANSWER_TYPES = {
    "label": pyarrow.string(),
    "label_zh": pyarrow.string(),
    "confidence": pyarrow.float64(),
    "decision": pyarrow.string(),
    "reason": pyarrow.string(),
}
ERROR = "score_error"


def score_file(source: Path, target: Path, classifiers: Mapping[str, Classifier], text_column: str = "text") -> int:
    """Add the answers of ``classifiers`` to every row of ``source`` and write ``target``.

    Answers stand in columns ``<task>.label``, ``.label_zh``, ``.confidence``, ``.decision`` and ``.reason``. A row
    that cannot be scored keeps its place, with the reason in ``score_error``.

    Args:
        source: CSV, TSV, JSON lines or Parquet.
        target: likewise, by its ending.
        classifiers: task name -> model.
        text_column: the column of ``source`` that holds the text.

    Returns:
        The number of rows.

    Raises:
        DataError: a file or column is wrong, or an unfinished run with other input or models is in the way.
    """
    table_format(target)
    if source.resolve() == target.resolve():
        raise DataError(f"{target} is the input file; choose another --out")
    parts = target.with_name(f"{target.name}.parts")
    state = {
        "source": sha256_of_file(source) if source.is_file() else None,
        "text_column": text_column,
        "models": {task: classifier.version for task, classifier in classifiers.items()},
        "chunk": CHUNK,
    }
    done = _unfinished(parts, state)
    rows = (row for _, row in read_rows(source, (text_column,)))
    chunk = list(islice(rows, CHUNK))  # before anything is written: a wrong file or column ends here
    write_json(parts / "state.json", state)
    total = number = 0
    with tqdm(unit="row", desc=f"scoring {source.name}") as bar:
        while chunk:
            if number >= done:
                answers = answer_rows(chunk, classifiers, text_column)
                text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
                write_text(parts / f"{number:08d}.jsonl", text)
            number, total = number + 1, total + len(chunk)
            bar.update(len(chunk))
            chunk = list(islice(rows, CHUNK))
    taken = {ERROR, *(f"{task}.{name}" for task in classifiers for name in ANSWER_TYPES)}
    fields = [field for field in schema_of(source) if field.name not in taken]
    added = [pyarrow.field(f"{task}.{name}", kind) for task in classifiers for name, kind in ANSWER_TYPES.items()]
    schema = pyarrow.schema([*fields, *added, pyarrow.field(ERROR, pyarrow.string())])
    write_rows(target, _joined(source, text_column, parts, schema, table_format(source), taken), schema)
    shutil.rmtree(parts)
    return total


def answer_rows(rows: list[Row], classifiers: Mapping[str, Classifier], text_column: str) -> list[dict[str, Any]]:
    """Return the added columns for each row."""
    texts = [row.get(text_column) for row in rows]
    answers: list[dict[str, Any]] = [{} for _ in rows]
    good: list[int] = []
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not normalise(text):
            answers[index][ERROR] = "empty text"
        elif len(text) > MAX_CHARACTERS:
            answers[index][ERROR] = f"text of {len(text)} characters, at most {MAX_CHARACTERS}"
        else:
            good.append(index)
    for task, classifier in classifiers.items():
        multi_label = classifier.settings.kind == "multi_label"
        found = classifier.predict([str(texts[index]) for index in good], top_k=1)
        for index, one in zip(good, found, strict=True):
            answers[index] |= {f"{task}.{name}": value for name, value in one.flat().items()}
            if multi_label and not one.labels:
                answers[index][f"{task}.label"] = ""
    return answers


def _unfinished(parts: Path, state: dict[str, Any]) -> int:
    """Return how many chunks an earlier run with the same input and models has finished."""
    described = parts / "state.json"
    if not described.is_file():
        return 0
    if json.loads(described.read_text(encoding="utf-8")) != state:
        raise DataError(
            f"{parts} holds an unfinished run with another input or other models; "
            "remove the folder to start anew, or choose another --out"
        )
    return len(list(parts.glob("*.jsonl")))


def _joined(
    source: Path, text_column: str, parts: Path, schema: pyarrow.Schema, kind: str, added: Set[str]
) -> Iterator[Row]:
    answers = (json.loads(line) for part in sorted(parts.glob("*.jsonl")) for line in part.open(encoding="utf-8"))
    own = set(schema.names) - added
    text = {field.name for field in schema if field.type == pyarrow.string()} if kind == ".jsonl" else set()
    for (_, row), answer in zip(read_rows(source, (text_column,)), answers, strict=True):
        kept = {name: _as_text(value) if name in text else value for name, value in row.items() if name in own}
        yield {**dict.fromkeys(schema.names), **kept, **answer}


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
