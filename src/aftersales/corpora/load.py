"""From the ``data:`` section of a config to labelled splits."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError, nearest
from aftersales.corpora.labelled import (
    FOLDS,
    Columns,
    Example,
    LabelledData,
    assemble,
    read_examples,
    sample,
    split_by_key,
)
from aftersales.corpora.public import load_public
from aftersales.tasks import Task, find_task, load_task


class DataConfig(Config):
    """Which labelled texts to use.

    Attributes:
        task: a task by name or folder; its splits are used unless ``path`` names other rows.
        public: a public set instead of a task.
        fold: which fold of ``public`` to hold out, where it has no published parts.
        path: a CSV, TSV, JSON lines or Parquet file of our own; split by the hash of the text, unless
            ``test_path`` (and ``validation_path``) name files for these splits.
        text_column, label_column, id_column: how the file names its columns; labels are looked for in ``label``
            (``labels`` in multi-label tasks) when nothing is said.
        label_separator: between several labels in one cell.
        label_map: label as written in the file -> label of the task.
        bad_rows: ``stop`` at the first bad row of ``path``, or ``skip`` them and say how many.
        limit: use about this many training rows, for a quick look.
    """

    task: str | None = None
    public: str | None = None
    fold: int | None = Field(default=None, ge=0, lt=FOLDS)
    path: Path | None = None
    validation_path: Path | None = None
    test_path: Path | None = None
    text_column: str = "text"
    label_column: str | None = None
    id_column: str | None = "id"
    label_separator: str = "|"
    label_map: dict[str, str] | None = None
    bad_rows: Literal["stop", "skip"] = "stop"
    limit: int | None = Field(default=None, ge=1)

    @field_validator("label_map", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        """Take YAML's 1, true and 0.5 as the words they are in a file of labels."""
        return {_word(key): _word(label) for key, label in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.task is None) == (self.public is None):
            raise ValueError("give either data.task or data.public")
        if self.public and self.path:
            raise ValueError("data.path needs data.task, because a public set brings its own rows")
        if self.path is None and (odd := self.model_fields_set & OF_OWN_FILES):
            raise ValueError(f"data.{min(odd)} goes with data.path, the file it describes")
        return self

    @property
    def columns(self) -> Columns:
        """The column names as the reader wants them."""
        return Columns(self.text_column, self.label_column, self.id_column, self.label_separator, self.label_map)


# Keys that say how a file of one's own is read.
OF_OWN_FILES = {
    "validation_path", "test_path", "text_column", "label_column", "id_column", "label_separator", "label_map",
    "bad_rows",
}  # fmt: skip


def _word(value: Any) -> str:
    if isinstance(value, dict):
        raise ValueError(
            "a label with a dot cannot be written as data.label_map.1.0=…; put label_map into the YAML file"
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_data(config: DataConfig) -> LabelledData:
    """Load, check and split the texts that ``config`` names.

    Raises:
        ConfigError: the task or public set does not exist.
        DataError: a file, column, row or label is wrong.
    """
    if config.public:
        data = load_public(config.public, config.fold)
    else:
        folder = find_task(config.task or "")
        task = load_task(folder)
        data = _own_rows(task, config.path, config) if config.path else load_splits(task, folder)
    return LabelledData(data.task, sample(data.train, config.limit), data.validation, data.test, data.notes)


def load_splits(task: Task, folder: Path) -> LabelledData:
    """Load the three JSON-lines splits of a task folder."""
    train, validation, test = (
        read_examples(folder / f"{split}.jsonl", task, Columns()) for split in ("train", "validation", "test")
    )
    return assemble(task, train, validation, test)


def _own_rows(task: Task, path: Path, config: DataConfig) -> LabelledData:
    for written, label in (config.label_map or {}).items():
        if label not in task.label_names:
            raise ConfigError(f"data.label_map.{written}: unknown label {label!r}{nearest(label, task.label_names)}")
    notes: list[str] = []
    skipped = notes if config.bad_rows == "skip" else None

    def rows(table: Path) -> list[Example]:
        return read_examples(table, task, config.columns, skipped)

    train, validation, test, repeated = split_by_key(rows(path))
    if config.test_path:
        train, test = [*train, *test], rows(config.test_path)
    if config.validation_path:
        train, validation = [*train, *validation], rows(config.validation_path)
    return assemble(task, train, validation, test, [*notes, *repeated])
