"""Adapters of public labelled sets. Their rows stay outside the repository, in the folder that one setting names."""

import os
from collections.abc import Callable
from pathlib import Path

from aftersales.core.errors import ConfigError, DataError, nearest
from aftersales.corpora.labelled import Columns, Example, LabelledData, assemble, read_examples, renumber, split_by_key
from aftersales.tasks import Label, Task
from aftersales.tasks.task import Title

PUBLIC_DATA_VARIABLE = "AFTERSALES_PUBLIC_DATA"


def load_public(name: str) -> LabelledData:
    """Load a public set by name from the folder in ``$AFTERSALES_PUBLIC_DATA``.

    Raises:
        ConfigError: the set is unknown or the folder is not set or lacks it.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"public set {name!r} has no adapter{nearest(name, ADAPTERS)}")
    root = os.environ.get(PUBLIC_DATA_VARIABLE)
    if not root:
        raise ConfigError(f"set {PUBLIC_DATA_VARIABLE} to the folder that holds the public sets to use {name!r}")
    found = sorted(Path(root).glob(f"**/{name}"))
    if not found:
        raise ConfigError(f"{PUBLIC_DATA_VARIABLE}={root} holds no folder {name!r}")
    return ADAPTERS[name](found[0])


def online_shopping_10_cats(folder: Path) -> LabelledData:
    """Reviews of ten product categories, two sentiments, split by key (10 % test, 10 % validation)."""
    task = Task(
        name="online_shopping_10_cats",
        title=Title(en="Review sentiment", zh="评论情感"),
        kind="single_label",
        metric="accuracy",
        labels=[Label(name="negative", zh="负面"), Label(name="positive", zh="正面")],
    )
    columns = Columns(text="review", label="label", id=None, renamed={"0": "negative", "1": "positive"})
    path = folder / "online_shopping_10_cats.csv"
    notes: list[str] = []
    train, validation, test, repeated = split_by_key(read_examples(path, task, columns, notes))
    return assemble(task, train, validation, test, [*notes, *repeated])


def smp2017_task1(folder: Path) -> LabelledData:
    """31 domains of a voice assistant (SMP 2017 ECDT task 1), with the published train, develop and test parts."""
    parts: dict[str, list[Example]] = {}
    for split in ("train", "develop", "test"):
        examples = []
        for path in sorted((folder / "Task1data" / split).glob(f"{split}_*.txt")):
            label = path.stem.removeprefix(f"{split}_")
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            examples += [Example("", line.strip(), (label,)) for line in lines if line.strip()]
        if not examples:
            raise DataError(f"{folder / 'Task1data' / split} holds no {split}_<label>.txt files")
        parts[split] = renumber(examples, split)
    names = sorted({label for example in parts["train"] for label in example.labels})
    task = Task(
        name="smp2017_task1",
        title=Title(en="Assistant domain", zh="助手领域"),
        kind="single_label",
        metric="macro_f1",
        labels=[Label(name=name) for name in names],
    )
    return assemble(task, parts["train"], parts["develop"], parts["test"])


ADAPTERS: dict[str, Callable[[Path], LabelledData]] = {
    "online_shopping_10_cats": online_shopping_10_cats,
    "smp2017_task1": smp2017_task1,
}
