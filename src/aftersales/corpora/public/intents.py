"""Public sets of intents: assistant domains, turns of a shop's customer service, questions to a payment service."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from aftersales.core.errors import DataError
from aftersales.corpora.labelled import Example, LabelledData, assemble, held_out_fold, renumber
from aftersales.corpora.tables import read_rows
from aftersales.tasks import Label, Task
from aftersales.tasks.task import Title
from aftersales.text.normalise import key

MIN_ROWS = 30  # rarer labels are left out, as in the floors these sets are compared with
SEPARATOR = "｜"
CONTEXT_TURNS, CONTEXT_CHARACTERS = 2, 60


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
    task = _task("smp2017_task1", "Assistant domain", "助手领域", "macro_f1", parts["train"])
    return assemble(task, parts["train"], parts["develop"], parts["test"])


def jddc_uss_asap(folder: Path, fold: int) -> LabelledData:
    """39 intents of customers' turns in service dialogues, each behind the customer's two turns before it.

    Five folds by dialogue. The labels were given by a classifier (silver); a turn often gets that of its dialogue. The
    context is cut at its beginning, so that the turn itself stays whole where texts are cut to 128 tokens.
    """
    rows = [row for _, row in read_rows(folder / "jddc_intent_utterances.tsv", ("dialog", "text", "action"))]
    counts = Counter(row["action"] for row in rows)
    chosen = {name for name, count in counts.items() if count >= MIN_ROWS and name != "OTHER"}
    examples, groups = [], []
    said: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        dialogue, text = f"{row['split']} {row['dialog']}", row["text"] or ""
        if row["action"] in chosen and text:
            before = SEPARATOR.join([*said[dialogue][-CONTEXT_TURNS:], ""])[-CONTEXT_CHARACTERS:]
            examples.append(Example("", before + text, (row["action"],)))
            groups.append(dialogue)
        said[dialogue].append(text)
    task = _task("jddc_uss_asap", "Service turn intent", "客服对话意图", "accuracy", examples)
    return held_out_fold(task, renumber(examples, "turn"), groups, fold)


def unionpay_faq(folder: Path, fold: int) -> LabelledData:
    """29 subjects of questions to a payment service; five folds by text."""
    content = (folder / "data.txt").read_text(encoding="utf-8")
    entry = r"^    question :([^\n]*)\n.*?^    subject:([^\n]*)$"
    found = re.findall(entry, content, flags=re.MULTILINE | re.DOTALL)
    first: dict[str, Example] = {}
    for question, subject in found:
        text = question.replace("\ufeff", "").strip()
        if text:
            first.setdefault(key(text), Example("", text, (re.sub(r"[^\w.\-]", "_", subject.strip()),)))
    counts = Counter(example.labels[0] for example in first.values())
    examples = [example for example in first.values() if counts[example.labels[0]] >= MIN_ROWS]
    task = _task("unionpay_faq", "Question subject", "问题主题", "macro_f1", examples)
    return held_out_fold(task, renumber(examples, "question"), [key(example.text) for example in examples], fold)


def _task(name: str, en: str, zh: str, metric: str, examples: Sequence[Example]) -> Task:
    names = sorted({label for example in examples for label in example.labels})
    return Task.model_validate(
        {
            "name": name,
            "title": Title(en=en, zh=zh),
            "kind": "single_label",
            "metric": metric,
            "labels": [Label(name=one) for one in names],
        }
    )
