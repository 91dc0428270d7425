"""Cells of the tables that this room reads, with errors that name the line and the column."""

import math
from collections.abc import Mapping
from typing import Any

from aftersales.core.errors import DataError

COLUMN_OPTIONS = "the option of the command that names this column"


def text_cell(row: Mapping[str, Any], column: str) -> str:
    """Return a cell as text without spaces around it; empty when there is nothing in it."""
    value = row.get(column)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def required_cell(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a cell that must not be empty.

    Raises:
        DataError: it is.
    """
    if text := text_cell(row, column):
        return text
    raise DataError(f"{where}: column {column!r} is empty; fill it or remove the row")


def number_cell(row: Mapping[str, Any], column: str, where: str) -> float | None:
    """Return a cell as a number, or None when it is empty or NaN.

    Raises:
        DataError: it is something else than a finite number.
    """
    text = text_cell(row, column)
    if isinstance(row.get(column), bool):
        return float(row[column])
    try:
        number = float(text or "nan")
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise DataError(f"{where}: column {column!r} holds {text!r}, which is no finite number; write 59 or 59.90")
    return None if math.isnan(number) else number
