"""Public sets of aspects with their polarity: cosmetics reviews and talk about cars."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from aftersales.corpora.labelled import Example, LabelledData, assemble, renumber, split_by_key
from aftersales.corpora.public.gbk import read_gbk
from aftersales.corpora.tables import read_rows
from aftersales.tasks import Label, Task
from aftersales.tasks.task import Title
from aftersales.text.normalise import key

MIN_ROWS = 30  # rarer pairs of aspect and polarity are left out
POLARITIES = {
    "正面": "positive",
    "中性": "neutral",
    "负面": "negative",
    "1": "positive",
    "0": "neutral",
    "-1": "negative",
}


def zhijiang2019(folder: Path) -> LabelledData:
    """13 aspects of cosmetics reviews with three polarities (Zhijiang Lab competition 2019), split by key."""
    found: dict[str, list[str]] = defaultdict(list)
    for _, row in read_rows(folder / "Train_labels.csv", ("id", "Categories", "Polarities")):
        found[str(row["id"])].append(f"{row['Categories']}_{POLARITIES[row['Polarities']]}")
    reviews = read_gbk(folder / "Train_reviews.csv")  # its other columns do not belong to the row
    rows = [(row["Reviews"], found[row["id"]]) for row in reviews if row["id"] and row["Reviews"]]
    return _aspects("zhijiang2019", "Cosmetics review aspects", "化妆品评论方面", rows)


def bdci2018_car(folder: Path) -> LabelledData:
    """Ten aspects of cars with three polarities (CCF BDCI 2018), joined from words back to text, split by key."""
    rows = []
    for line in (folder / "train.txt").read_text(encoding="utf-8").splitlines():
        words, _, pairs = line.partition("\t")
        named = (pair.rpartition("#") for pair in pairs.split())
        rows.append((words.replace(" ", ""), [f"{topic}_{POLARITIES[polarity]}" for topic, _, polarity in named]))
    return _aspects("bdci2018_car", "Car aspects", "汽车话题", rows)


def _aspects(name: str, en: str, zh: str, rows: Sequence[tuple[str, Sequence[str]]]) -> LabelledData:
    counts: Mapping[str, int] = Counter(label for _, labels in rows for label in set(labels))
    examples = [
        Example("", text, tuple(dict.fromkeys(label for label in labels if counts[label] >= MIN_ROWS)))
        for text, labels in rows
        if key(text)
    ]
    labels = [Label(name=label) for label in sorted(counts) if counts[label] >= MIN_ROWS]
    task = Task(name=name, title=Title(en=en, zh=zh), kind="multi_label", metric="micro_f1", labels=labels)
    train, validation, test, notes = split_by_key(renumber(examples, "row"))
    return assemble(task, train, validation, test, notes)
