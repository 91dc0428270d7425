"""Make the folder of a new classification task from one file of labelled texts."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError
from aftersales.core.files import atomic_folder, write_text
from aftersales.core.paths import project_root
from aftersales.corpora.labelled import (
    MIN_TEST_ROWS,
    Columns,
    Example,
    LabelledData,
    assemble,
    labels_found,
    read_examples,
    renumber,
    split_by_key,
)
from aftersales.tasks import Task
from aftersales.tasks.task import LABEL, NAME, SPLITS

ENOUGH_TEST_ROWS = 5
CONFIG = """# aftersales train configs/{name}.yaml
recipe: classify
data:
  task: {name}
"""
GUIDELINES = """# {title} 标注规范

一条文本{how}。逐个标签写明：定义、正例、反例、与哪个标签容易混淆、如何判断。

{labels}
"""
CARD = """# {title}

{total} rows from `{source}`, split by the hash of the text: {counts}. Labels as found in the file.
Say here who wrote the texts, who labelled them and by which rules, and what the set must not be used for.
"""


@dataclass(frozen=True)
class Made:
    """A new task: its folder, its config, and what its user should know about the data."""

    folder: Path
    config: Path
    notes: Sequence[str]


def make_task(
    name: str, path: Path, columns: Columns, multi_label: bool, title_zh: str | None = None, skip_bad: bool = False
) -> Made:
    """Write ``data/tasks/<name>`` and ``configs/<name>.yaml``.

    Raises:
        ConfigError: the name is taken or is no valid name.
        DataError: a row is wrong, or a label is too rare to be learned.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"task name {name!r} is not made of lower-case letters, digits and _, a letter first")
    folder = project_root() / "data" / "tasks" / name
    config = project_root() / "configs" / f"{name}.yaml"
    if folder.exists() or config.exists():
        raise ConfigError(f"task {name!r} exists already ({folder}); choose another name or remove folder and config")
    found = labels_found(path, columns, multi_label)
    if len(found) < 2:
        raise DataError(
            f"{path}: column {columns.label_for(multi_label)!r} holds {len(found)} label(s), at least 2 are needed"
        )
    if odd := [label for label in sorted(found) if not re.fullmatch(LABEL, label)]:
        raise DataError(
            f"{path}: label {odd[0]!r} holds something else than letters (Chinese too), digits, '_', '-' and '.'; "
            "rename it in the file" + ("" if multi_label else ", or say --multi-label if it names several")
        )
    described = {
        "name": name,
        "title": {"en": name.replace("_", " ").capitalize(), "zh": title_zh or name},
        "kind": "multi_label" if multi_label else "single_label",
        "metric": "micro_f1" if multi_label else "macro_f1",
        "labels": [{"name": label} for label in sorted(found)],
    }
    task = build(Task, described, f"task {name!r}")
    skipped: list[str] = []
    examples = read_examples(path, task, columns, skipped if skip_bad else None)
    train, validation, test, repeated = split_by_key(examples)
    data = assemble(task, train, validation, test, [*skipped, *repeated])
    with atomic_folder(folder) as aside:
        text = yaml.safe_dump(described, allow_unicode=True, sort_keys=False, width=110)
        write_text(aside / "task.yaml", text)
        for split in SPLITS:
            _write_split(aside / f"{split}.jsonl", data.splits[split], task, f"{name}-{split}")
        sections = "\n".join(f"## {label}\n\n定义：\n\n正例：\n\n反例：\n" for label in task.label_names)
        how = "可有多个标签，也可没有" if multi_label else "恰好一个标签"
        write_text(aside / "guidelines.md", GUIDELINES.format(title=task.title.zh, how=how, labels=sections))
        counts = ", ".join(f"{len(data.splits[split])} {split}" for split in SPLITS)
        total = sum(len(part) for part in data.splits.values())
        write_text(aside / "README.md", CARD.format(title=task.title.zh, total=total, source=path.name, counts=counts))
    write_text(config, CONFIG.format(name=name))
    return Made(folder, config, [*data.notes, *_thin(data)])


def _thin(data: LabelledData) -> list[str]:
    """Return a note when labels have so few test rows that their figures mean little."""
    counts = Counter(label for example in data.test for label in example.labels)
    few = [label for label, count in counts.items() if count < ENOUGH_TEST_ROWS]
    notes = []
    if len(data.test) < MIN_TEST_ROWS:
        notes.append(
            f"{len(data.test)} test rows: the gate wants at least {MIN_TEST_ROWS} before a model can become champion; "
            "add rows to test.jsonl"
        )
    if not few:
        return notes
    return [*notes, f"fewer than {ENOUGH_TEST_ROWS} test rows, figures mean little for: {', '.join(sorted(few))}"]


def _write_split(path: Path, examples: Sequence[Example], task: Task, prefix: str) -> None:
    lines = []
    for example in renumber(examples, prefix):
        labels = {"labels": list(example.labels)} if task.multi_label else {"label": example.labels[0]}
        lines.append(json.dumps({"id": example.id, "text": example.text, **labels}, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
