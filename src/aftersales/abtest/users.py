"""What every user did in an experiment, added up from a table of events: users are assigned, so users are compared."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aftersales.abtest.cells import COLUMN_OPTIONS, number_cell, required_cell, text_cell
from aftersales.core.errors import DataError, nearest
from aftersales.corpora.tables import read_rows


class Column(NamedTuple):
    """A column of the table and how the rows of a user become one figure.

    ``sum`` adds them, ``any`` is 1 where one is not zero, and ``once`` is a figure of the user that every row repeats
    or leaves empty; a user without it has NaN.
    """

    name: str
    how: Literal["sum", "any", "once"] = "sum"


@dataclass(frozen=True)
class UserTable:
    """One row a user.

    Attributes:
        variants: variant -> rows of its users, int64 of shape (users of the variant,).
        columns: column -> figure of each user, float64 of shape (users,).
        crossed: users seen in two variants, who stand in no variant.
        unassigned: rows without a variant, which were left out.
    """

    variants: dict[str, NDArray[np.int64]]
    columns: dict[Column, NDArray[np.float64]]
    crossed: int = 0
    unassigned: int = 0


def read_users(
    path: Path,
    columns: Sequence[Column],
    user_column: str = "user_id",
    variant_column: str | None = "variant",
    known: Collection[str] = (),
) -> UserTable:
    """Read a CSV, TSV, JSON lines or Parquet file with one or more rows a user.

    Args:
        path: the file.
        columns: what to add up.
        user_column: column of the user id.
        variant_column: column of the variant; None puts everybody into the variant ``""``, as a pilot needs it.
        known: the variants that there may be; any when empty.

    Raises:
        DataError: a missing file or column, no rows, an unknown variant, a row without a user, or a metric that is
            missing or no finite number; the line is named.
    """
    first: dict[str, str] = {}  # user -> variant seen first
    figures: dict[str, list[float]] = {}
    crossed: set[str] = set()
    unassigned = 0
    names = (user_column, *([variant_column] if variant_column else []), *(column.name for column in columns))
    for line, row in read_rows(path, names, COLUMN_OPTIONS):
        where = f"{path} line {line}"
        user = required_cell(row, user_column, where)
        variant = text_cell(row, variant_column) if variant_column else ""
        if variant_column and not variant:
            unassigned += 1
            continue
        if known and variant not in known:
            raise DataError(f"{where}: unknown variant {variant!r}{nearest(variant, known)}")
        if first.setdefault(user, variant) != variant:
            crossed.add(user)
        own = figures.setdefault(user, [_START[column.how] for column in columns])
        for place, column in enumerate(columns):
            own[place] = _added(column, own[place], row, where)
    kept = [user for user in figures if user not in crossed]
    values = np.array([figures[user] for user in kept], dtype=np.float64).reshape(len(kept), len(columns))
    places: dict[str, list[int]] = {}
    for place, user in enumerate(kept):
        places.setdefault(first[user], []).append(place)
    return UserTable(
        variants={name: np.array(places[name], dtype=np.int64) for name in sorted(places)},
        columns={column: values[:, place] for place, column in enumerate(columns)},
        crossed=len(crossed),
        unassigned=unassigned,
    )


_START = {"sum": 0.0, "any": 0.0, "once": np.nan}


def _added(column: Column, before: float, row: dict[str, Any], where: str) -> float:
    """Return a user's figure after one more row."""
    value = number_cell(row, column.name, where)
    if column.how == "once":
        if value is not None and value != before and not np.isnan(before):
            raise DataError(
                f"{where}: column {column.name!r} holds {value:g} after {before:g} for the same user; a figure of the "
                "time before the experiment is one a user: repeat it or leave the cell empty"
            )
        return before if value is None else value
    if value is None:
        raise DataError(
            f"{where}: column {column.name!r} is empty or NaN; write 0 where nothing happened, or leave the row out"
        )
    return before + value if column.how == "sum" else max(before, float(value != 0))
