"""Public sets of complaint causes: clauses of laptop reviews, labelled by hand."""

from collections import Counter
from pathlib import Path

from aftersales.corpora.labelled import (
    MIN_ROWS_A_LABEL,
    Example,
    LabelledData,
    renumber,
    split_by_key,
)
from aftersales.tasks import Label, Task
from aftersales.tasks.task import Title
from aftersales.text.normalise import key

SENTIMENTS = {"0": "neutral", "1": "positive", "2": "negative"}


def jd_laptop_fine(folder: Path) -> LabelledData:
    """36 causes, one of which the training part lacks."""
    return _clauses(folder, "fine", "manually_labeled_data_class2.txt", "class_test_data.txt", None)


def jd_laptop_coarse(folder: Path) -> LabelledData:
    """10 groups of causes."""
    lines = (folder / "class2_class1.txt").read_text(encoding="utf-8-sig").splitlines()
    groups = dict(line.split("\t")[:2] for line in lines if "\t" in line)
    return _clauses(folder, "coarse", "manually_labeled_data_class2.txt", "class_test_data.txt", groups)


def jd_laptop_sentiment(folder: Path) -> LabelledData:
    """Three sentiments."""
    return _clauses(folder, "sentiment", "manually_labeled_data_sentiment.txt", "sentiment_test_data.txt", SENTIMENTS)


def _clauses(folder: Path, level: str, train: str, test: str, renamed: dict[str, str] | None) -> LabelledData:
    """Read both parts; test rows that stand in train are left out of test, and a tenth of train chooses."""

    def rows(name: str) -> list[Example]:
        pairs = [line.split("\t") for line in (folder / name).read_text(encoding="utf-8-sig").splitlines() if line]
        named = [(renamed[label] if renamed else label, text) for label, text in pairs]
        return [Example("", text.strip(), (label,)) for label, text in named if key(text)]

    known, tested = rows(train), rows(test)
    learned, validation, more, notes = split_by_key(known)
    counts = Counter(example.labels[0] for example in (*learned, *more))
    rare = [example for example in validation if counts[example.labels[0]] < MIN_ROWS_A_LABEL]
    learned, validation = [*learned, *rare], [example for example in validation if example not in rare]
    seen = {key(example.text) for example in known}
    unseen = list({key(example.text): example for example in tested if key(example.text) not in seen}.values())
    # One published test label has no training row: it stays, and no model can get it right.
    names = sorted({label for example in (*known, *unseen) for label in example.labels})
    task = Task(
        name=f"jd_laptop_{level}",
        title=Title(en=f"Laptop review, {level}", zh="笔记本评论"),
        kind="single_label",
        metric="accuracy",
        labels=[Label(name=name) for name in names],
    )
    notes.append(f"{len(tested) - len(unseen)} test rows stand in train or repeat each other and were left out")
    parts = renumber([*learned, *more], "train"), renumber(validation, "validation"), renumber(unseen, "test")
    return LabelledData(task, *parts, notes)  # a published label with a single row stays, as in published floors
