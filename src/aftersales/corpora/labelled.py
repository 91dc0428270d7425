"""Labelled texts: validated rows, three splits, one fingerprint."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aftersales.core.errors import DataError, nearest
from aftersales.corpora.tables import Row, read_rows
from aftersales.tasks import Task
from aftersales.text.normalise import MAX_CHARACTERS, key, normalise

# Buckets of a hundred that the hash split gives to test and validation; the rest is training data.
TEST_BUCKETS, VALIDATION_BUCKETS = range(0, 10), range(10, 20)
MIN_ROWS_A_LABEL = 2
MIN_TEST_ROWS = 20  # fewer say too little to choose a champion by
FOLDS = 5


@dataclass(frozen=True)
class Example:
    """One text with its labels (exactly one for single-label tasks) and the marks of hard cases."""

    id: str
    text: str
    labels: tuple[str, ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table of labelled texts.

    Attributes:
        text: the message.
        label: its label; a list, or names joined by ``separator``, in multi-label tasks. None means ``label``, or
            ``labels`` in multi-label tasks.
        id: a unique id; rows are numbered when it is None or absent.
        separator: between the labels of a multi-label cell.
        renamed: label as written in the file -> label of the task.
    """

    text: str = "text"
    label: str | None = None
    id: str | None = "id"
    separator: str = "|"
    renamed: Mapping[str, str] | None = None

    def label_for(self, multi_label: bool) -> str:
        """Return the name of the label column."""
        return self.label or ("labels" if multi_label else "label")


@dataclass(frozen=True)
class LabelledData:
    """A task with its three splits.

    Attributes:
        notes: what was left out or changed on the way, for people to read.
    """

    task: Task
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    notes: Sequence[str] = ()

    @property
    def splits(self) -> dict[str, Sequence[Example]]:
        """The splits by name, in the order train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the labels of the task and every row of every split."""
        digest = hashlib.sha256(repr(self.task.label_names).encode())
        for name, examples in self.splits.items():
            digest.update(fingerprint(examples, name).encode())
        return digest.hexdigest()


def fingerprint(examples: Iterable[Example], name: str = "") -> str:
    """Return the SHA-256 over texts and labels, independent of the order of rows."""
    rows = sorted(repr((name, example.text, sorted(example.labels))) for example in examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def read_examples(path: Path, task: Task, columns: Columns, notes: list[str] | None = None) -> list[Example]:
    """Read and check every row of a table.

    Args:
        path: a file that ``read_rows`` can read.
        task: whose labels the rows must bear.
        columns: how the file names its columns.
        notes: when given, a bad row is left out and counted here instead of ending the reading.

    Raises:
        DataError: an empty or over-long text, an unknown label or a duplicate id; the line is named.
    """
    label_column = columns.label_for(task.multi_label)
    examples: list[Example] = []
    seen: dict[str, int] = {}
    problems: list[str] = []
    for line, row in read_rows(path, (columns.text, label_column)):
        try:
            example = _example(row, f"{path} line {line}", line, task, columns, label_column)
            if example.id in seen:
                raise DataError(
                    f"{path} line {line}: duplicate id {example.id!r}, first used in line {seen[example.id]}; "
                    "ids must be unique"
                )
        except DataError as error:
            if notes is None:
                raise DataError(
                    f"{error} (in a file of your own: data.bad_rows=skip or new-task --skip-bad-rows leaves them out)"
                ) from None
            problems.append(str(error))
            continue
        seen[example.id] = line
        examples.append(example)
    if notes is not None and problems:
        notes.append(f"{len(problems)} bad rows of {path.name} were left out; the first: {problems[0]}")
    return examples


def _example(row: Row, where: str, line: int, task: Task, columns: Columns, label_column: str) -> Example:
    if label_column not in row:
        raise DataError(f"{where}: the row has no {label_column!r}; add it or remove the row")
    found = row.get(columns.text)
    text = found if isinstance(found, str) else ""
    if not normalise(text):
        raise DataError(f"{where}: the text is empty; fill it or remove the row")
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"{where}: the text has {len(text):,} characters, at most {MAX_CHARACTERS:,} are allowed; cut it"
        )
    written, marks = row.get(columns.id) if columns.id else None, row.get("marks")
    name = f"{line}" if written is None else str(written)
    return Example(
        name, text, _labels(row[label_column], task, columns, where), tuple(marks) if isinstance(marks, list) else ()
    )


def split_by_key(examples: Sequence[Example]) -> tuple[list[Example], list[Example], list[Example], list[str]]:
    """De-duplicate by text key (the first row stays) and split by its hash into train, validation and test.

    The split of a text depends on the text alone, so added rows never move others.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(key(example.text), example)
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    for text_key, example in first.items():
        bucket = int(hashlib.sha256(text_key.encode()).hexdigest()[:8], 16) % 100
        parts[2 if bucket in TEST_BUCKETS else 1 if bucket in VALIDATION_BUCKETS else 0].append(example)
    dropped = len(examples) - len(first)
    return *parts, [f"{dropped} rows repeat an earlier text and were left out"] if dropped else []


def held_out_fold(task: Task, examples: Sequence[Example], groups: Sequence[str], fold: int) -> LabelledData:
    """Hold one of ``FOLDS`` folds out as test; of the other rows, a tenth of the groups becomes validation.

    Args:
        task: of the rows.
        examples: all rows.
        groups: of each row; a group is never cut. Its hash decides.
        fold: 0 to ``FOLDS`` - 1.
    """
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    for example, group in zip(examples, groups, strict=True):
        bucket = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16)
        test, validation = bucket % FOLDS == fold, bucket // FOLDS % 10 == 0
        parts[2 if test else 1 if validation else 0].append(example)
    return assemble(task, *parts)


def assemble(
    task: Task,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    notes: Sequence[str] = (),
) -> LabelledData:
    """Put splits together: leaks out of training, absent labels out of the task, rare ones refused.

    Raises:
        DataError: a split is empty, or a label has a single training row.
    """
    tested = {_form(example) for example in test}
    chosen = [example for example in validation if _form(example) not in tested]
    if len(chosen) < len(validation):
        notes = [*notes, f"{len(validation) - len(chosen)} validation rows stand in test and were left out"]
    validation = chosen
    evaluated = tested | {_form(example) for example in validation}
    kept = [example for example in train if _form(example) not in evaluated]
    for name, examples in (("train", kept), ("validation", validation), ("test", test)):
        if not examples:
            raise DataError(
                f"task {task.name}: the {name} split is empty (rows that stand in a later split do not count); "
                "give more rows or a file of its own"
            )
    found = list(notes)
    if len(kept) < len(train):
        found.append(f"{len(train) - len(kept)} training rows stand in validation or test and were left out")
    counts = Counter(label for example in kept for label in example.labels)
    unlearnable = {label for example in (*validation, *test) for label in example.labels} - counts.keys()
    rare = sorted(unlearnable | {label for label, count in counts.items() if count < MIN_ROWS_A_LABEL})
    if rare:
        raise DataError(
            f"task {task.name}: label {rare[0]!r} has {counts[rare[0]]} training row(s), at least "
            f"{MIN_ROWS_A_LABEL} are needed; add rows, or rename it to another label in the file or with "
            f"data.label_map.{rare[0]}=<label>"
        )
    if unseen := sorted(counts.keys() - {label for example in test for label in example.labels}):
        found.append(f"labels without a test row, whose figures say nothing: {', '.join(unseen)}")
    absent = [label.name for label in task.labels if label.name not in counts]
    if absent:
        found.append(f"labels without a row are left out of the model: {', '.join(absent)}")
        task = task.model_copy(update={"labels": [label for label in task.labels if label.name in counts]})
    if len(task.labels) < 2:
        raise DataError(
            f"task {task.name}: every row has the label {next(iter(counts), None)!r}; at least 2 are needed"
        )
    return LabelledData(task, kept, list(validation), list(test), found)


def _form(example: Example) -> str:
    """Return what a model would take for the same text: stricter than the key, by which public sets are split."""
    return key(normalise(example.text))


def sample(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """Return about ``limit`` examples, chosen by the hash of their text so that the choice never moves.

    Every label keeps the rows it needs at least, so a very small limit gives some more.
    """
    if limit is None or limit >= len(examples):
        return examples
    chosen: list[Example] = []
    counts: Counter[str] = Counter()
    for example in sorted(examples, key=lambda one: hashlib.sha256(one.text.encode()).digest()):
        if len(chosen) < limit or any(counts[label] < MIN_ROWS_A_LABEL for label in example.labels):
            chosen.append(example)
            counts.update(example.labels)
    return chosen


def renumber(examples: Iterable[Example], prefix: str) -> list[Example]:
    """Give ids ``prefix-00001`` and so on, in the given order."""
    return [replace(example, id=f"{prefix}-{number:05d}") for number, example in enumerate(examples, 1)]


def _written(value: object, multi_label: bool, separator: str) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    cell = str("" if value is None else value)
    parts = cell.split(separator) if multi_label else [cell]
    return [part.strip() for part in parts if part.strip()]


def _labels(value: object, task: Task, columns: Columns, where: str) -> tuple[str, ...]:
    renamed = columns.renamed or {}
    written = _written(value, task.multi_label, columns.separator)
    labels = tuple(dict.fromkeys(renamed.get(name, name) for name in written))
    for label in labels:
        if label not in task.label_names:
            raise DataError(
                f"{where}: unknown label {label!r}{nearest(label, task.label_names).removesuffix('?')}; "
                f"mend the row, or map it with data.label_map.{label}=<label of the task>"
            )
    if not task.multi_label and len(labels) != 1:
        raise DataError(f"{where}: exactly one label is needed, found {len(labels)}")
    return labels


def labels_found(path: Path, columns: Columns, multi_label: bool) -> list[str]:
    """Return the distinct labels of a table, most frequent first."""
    counts: Counter[str] = Counter()
    column = columns.label_for(multi_label)
    for _, row in read_rows(path, (columns.text, column)):
        counts.update(_written(row.get(column), multi_label, columns.separator))
    return [label for label, _ in counts.most_common()]
