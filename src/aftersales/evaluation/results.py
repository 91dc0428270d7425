"""``results.json`` of an experiment: one row a figure, and the table in its README that is generated from it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from aftersales.core.errors import DataError
from aftersales.core.files import write_json, write_text

BEGIN, END = "<!-- results: generated, do not edit -->", "<!-- end of results -->"
Row = TypeVar("Row")


class Result(BaseModel):
    """A figure with everything needed to believe it. ``value`` is None where nobody has measured it yet.

    Attributes:
        dataset, split: on which rows.
        model: which was measured.
        metric: name of the metric.
        value: mean over the seeds.
        ci95: 95 % interval over seeds and test rows; over rows only where each fold has one seed.
        seeds: how many trainings.
        floor: the floor's value on the same rows.
        over_floor: 95 % interval of the paired difference to the floor.
        target: what was hoped for.
        n_test: test rows.
        data_sha256: fingerprint of all splits.
        model_sha256: of the weights that the model started from, where there are such.
        commit: of the code.
        seconds: of one training, the mean over seeds; None when it was stopped and went on.
        latency_ms, latency_int8_ms: median of the exported encoder for one text of 32 tokens on one core, in 32 and in
            8 bits.
        peak_mb: most memory the measuring process had held by then.
        machine: processor and cores.
        command: what fills this row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    dataset: str
    split: str
    model: str
    metric: str
    value: float | None = None
    ci95: tuple[float, float] | None = None
    seeds: int = 0
    floor: float | None = None
    over_floor: tuple[float, float] | None = None
    target: float | None = None
    n_test: int | None = None
    data_sha256: str | None = None
    model_sha256: str | None = None
    commit: str | None = None
    seconds: float | None = None
    latency_ms: float | None = None
    latency_int8_ms: float | None = None
    peak_mb: float | None = None
    machine: str | None = None
    command: str | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a row the same row."""
        return self.dataset, self.split, self.model, self.metric

    def better_of(self, other: Self) -> Self:
        """Return the row to keep of two with one key: the measured one, else this one."""
        return other if self.value is None and other.value is not None else self


def read_results(path: Path) -> list[Result]:
    """Read a results file; one that does not exist is empty.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [Result.model_validate(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path} is not a list of results ({str(error).splitlines()[0]}); restore it from git"
        ) from None


def merge_results(path: Path, found: Sequence[Result]) -> list[Result]:
    """Put ``found`` into the file at ``path`` in place of rows with the same key, and return all rows.

    Rows that were measured on other data of the same set and split, or of a model of that name with other weights, are
    taken out: they can no longer be compared.
    """
    known = {row.key: row for row in read_results(path)}
    data = {(row.dataset, row.split): row.data_sha256 for row in found if row.data_sha256}
    models = {row.model: row.model_sha256 for row in found if row.model_sha256}
    for key, row in list(known.items()):
        other_data = row.data_sha256 and row.data_sha256 != data.get(key[:2], row.data_sha256)
        if other_data or row.model_sha256 != models.get(row.model, row.model_sha256):
            del known[key]
    for row in found:
        known[row.key] = row.better_of(known.get(row.key, row))
    rows = list(known.values())
    write_json(path, [row.model_dump(mode="json", exclude_none=True) for row in rows])
    return rows


def write_table(readme: Path, rows: Sequence[Row], columns: dict[str, Callable[[Row], Any]]) -> None:
    """Replace the part of ``readme`` between the two marks by a table of ``rows``.

    Args:
        readme: a Markdown file that holds both marks.
        rows: one line each.
        columns: heading -> what stands in the cell.

    Raises:
        DataError: a mark is missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise DataError(f"{readme} lacks the line {BEGIN if not begin else END!r}, between which the table belongs")
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(cell(row)) for cell in columns.values()) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    write_text(readme, f"{before}{BEGIN}\n{table}\n{END}{after}")
