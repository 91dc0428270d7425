"""Assign the users of a file, for campaigns that no service answers."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow

from aftersales.abtest.cells import COLUMN_OPTIONS, required_cell
from aftersales.core.errors import DataError
from aftersales.corpora.tables import Row, read_rows, schema_of, write_rows
from aftersales.runtime.assignment import Assigner, Experiment

COLUMN = "variant"


def assign_file(source: Path, target: Path, experiment: Experiment, user_column: str = "user_id") -> Counter[str]:
    """Write the rows of ``source`` with a column ``variant``, empty for users who do not take part.

    Returns:
        Rows by variant; ``""`` for those who do not take part.

    Raises:
        DataError: the file or its column is missing, a row has no user, the file has a column ``variant``, or
            ``target`` is ``source``.
    """
    if target.resolve() == source.resolve():
        raise DataError(f"{target} is the input file; give another --out")
    rows = read_rows(source, (user_column,), COLUMN_OPTIONS)
    assigner = Assigner(experiment)
    counts: Counter[str] = Counter()

    def assigned() -> Iterator[Row]:
        for line, row in rows:
            if COLUMN in row:
                raise DataError(f"{source} line {line} has a column {COLUMN!r}; rename it")
            variant = assigner.variant(required_cell(row, user_column, f"{source} line {line}"))
            counts[variant or ""] += 1
            yield {**row, COLUMN: variant}

    write_rows(target, assigned(), schema_of(source).append(pyarrow.field(COLUMN, pyarrow.string())))
    return counts
