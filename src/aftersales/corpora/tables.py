"""Rows of a CSV, TSV, JSON lines or Parquet file, one at a time, in constant memory, with errors that name the row."""

import csv
import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from aftersales.core.errors import DataError, nearest

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
Row = dict[str, Any]


def table_format(path: Path) -> str:
    """Return the format of a table by its file name.

    Raises:
        DataError: the ending is none of ``FORMATS``.
    """
    suffix = ".jsonl" if path.suffix in {".json", ".ndjson"} else path.suffix
    if suffix not in FORMATS:
        raise DataError(f"{path}: the ending {path.suffix!r} is not one of {', '.join(FORMATS)}; convert the file")
    return suffix


HOW_TO_NAME = (
    "--text-column or --label-column (train, check: data.text_column=… or data.label_column=…)"  # of labelled texts
)


def read_rows(path: Path, columns: tuple[str, ...] = (), naming: str = HOW_TO_NAME) -> Iterator[tuple[int, Row]]:
    """Yield ``(line number, row)`` of a table; for Parquet the number is the row's, from 1.

    Args:
        path: a file with one of the endings in ``FORMATS``.
        columns: columns that the first row must have; a later row of JSON lines may lack one.
        naming: the options by which a user says what a column is called.

    Raises:
        DataError: the file is missing, not UTF-8, not of its format, or lacks a column.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        raise DataError(
            f"data file {path} does not exist; a relative path starts from the current folder, {Path.cwd()}"
        )
    rows = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[table_format(path)](path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"data file {path} has no rows")
    for column in columns:
        if column not in first[1]:
            hint = nearest(column, map(str, first[1])).removesuffix("?")
            raise DataError(
                f"{path} has no column {column!r}{hint}; rename it in the file, or name yours with {naming}"
            )
    yield from chain([first], rows)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{path} line {number} is not UTF-8{_guess(raw, path)}") from None


def _guess(raw: bytes, path: Path) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"; it looks like UTF-16: `iconv -f UTF-16 -t UTF-8 {path} > utf8{path.suffix}`"
    try:
        decoded = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "; save it as UTF-8"
    if any("\u4e00" <= character <= "\u9fff" for character in decoded):
        return f"; it looks like GB18030 (GBK): `iconv -f GB18030 -t UTF-8 {path} > utf8{path.suffix}`"
    return "; save it as UTF-8"


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.DictReader(
        (line for _, line in _lines(path)), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    try:
        for row in reader:
            if None in row:
                raise DataError(
                    f"{path} line {reader.line_num} has more cells than the header; quote cells that hold commas"
                )
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not valid CSV: {error}") from None


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, a thousand brackets
            said = getattr(error, "msg", None) or str(error)
            raise DataError(f"{path} line {number} is not JSON ({said}); the format is one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is not a JSON object but {type(row).__name__}")
        yield number, row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from None
    number = 0
    try:
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged after row {number}: {error}; copy or write the file again") from None


def write_rows(path: Path, rows: Iterator[Row], schema: pyarrow.Schema) -> None:
    """Write rows as CSV, TSV, JSON lines or Parquet, by the ending of ``path``; whole or not at all.

    Args:
        path: the file to write.
        rows: dictionaries with the columns of ``schema``; missing ones become null.
        schema: names and types; only Parquet keeps the types.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    write = {".csv": _write_csv, ".tsv": _write_csv, ".jsonl": _write_json_lines, ".parquet": _write_parquet}
    try:
        write[table_format(path)](aside, rows, schema, "\t" if path.suffix == ".tsv" else ",")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _write_csv(path: Path, rows: Iterator[Row], schema: pyarrow.Schema, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="", errors="replace") as stream:
        writer = csv.DictWriter(stream, schema.names, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def _write_json_lines(path: Path, rows: Iterator[Row], schema: pyarrow.Schema, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", errors="replace") as stream:  # half an emoji is no UTF-8
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _write_parquet(path: Path, rows: Iterator[Row], schema: pyarrow.Schema, delimiter: str) -> None:
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, 4096)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))


def schema_of(path: Path) -> pyarrow.Schema:
    """Return the schema of a table: its own for Parquet, strings for CSV, the widest scalar seen for JSON lines."""
    kind = table_format(path)
    if kind == ".parquet":
        return pyarrow.parquet.ParquetFile(path).schema_arrow
    fields: dict[str, pyarrow.DataType | None] = {}
    for _, row in read_rows(path):
        for name, value in row.items():
            fields[name] = _wider(fields.get(name), value)
        if kind != ".jsonl":
            break
    return pyarrow.schema([(name, found or pyarrow.string()) for name, found in fields.items()])


def _wider(known: pyarrow.DataType | None, value: Any) -> pyarrow.DataType | None:
    """Return the narrowest type that holds both; anything but one kind of scalar becomes a string."""
    if value is None:
        return known
    kinds = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    fits = not isinstance(value, int) or -(1 << 63) <= value < 1 << 63  # long order numbers are no 64-bit integers
    found = kinds.get(type(value), pyarrow.string()) if fits else pyarrow.string()
    if known is None or known == found:
        return found
    numbers = {pyarrow.int64(), pyarrow.float64()}
    return pyarrow.float64() if {known, found} <= numbers else pyarrow.string()
