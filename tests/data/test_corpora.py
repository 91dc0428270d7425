"""The shipped corpora keep what their cards promise."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from aftersales.corpora.load import DataConfig, load_data
from aftersales.tasks import find_task, known_tasks, load_task
from aftersales.text.normalise import key

TASKS = ("complaint_cause", "intent", "sentiment")
MIN_TEXTS = {"intent": 1000, "sentiment": 600, "complaint_cause": 700}
MIN_A_LABEL = {"intent": 30, "sentiment": 200, "complaint_cause": 30}
MARKS = {
    "sarcasm", "mixed", "praise_in_complaint", "double_negation", "typo", "homophone", "dialect", "emoji",
    "no_punctuation", "traditional", "multi_wish",
}  # fmt: skip


def trigrams(text):
    squeezed = key(text)
    return {squeezed[i : i + 3] for i in range(max(1, len(squeezed) - 2))}


def rows_of(task):
    folder = find_task(task)
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "validation", "test")
    }


def near_duplicates(first, second, bound):
    """Pairs of texts whose character-trigram Jaccard similarity is over the bound."""
    found = []
    indexed = [(row["text"], trigrams(row["text"])) for row in second]
    for row in first:
        mine = trigrams(row["text"])
        for text, theirs in indexed:
            if len(mine) * bound <= len(theirs) * 1.0 and len(theirs) * bound <= len(mine):
                shared = len(mine & theirs)
                if shared > bound * (len(mine) + len(theirs) - shared):
                    found.append((row["text"], text))
    return found


def test_the_shipped_tasks_are_known():
    assert set(TASKS) <= set(known_tasks())


@pytest.mark.parametrize("task", TASKS)
def test_counts_and_balance(task):
    data = load_data(DataConfig(task=task))
    assert not data.notes, "nothing may be left out of a shipped corpus"
    everything = [example for part in data.splits.values() for example in part]
    assert len(everything) >= MIN_TEXTS[task]
    counts = Counter(label for example in everything for label in example.labels)
    assert min(counts.values()) >= MIN_A_LABEL[task], counts.most_common()[-3:]
    assert set(counts) == set(load_task(find_task(task)).label_names)
    assert {mark for example in everything for mark in example.marks} <= MARKS
    ids = [example.id for example in everything]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("task", TASKS)
def test_no_text_stands_nearly_the_same_in_two_splits(task):
    splits = rows_of(task)
    for first, second in combinations(splits, 2):
        assert near_duplicates(splits[first], splits[second], 0.8) == []


def test_the_near_duplicate_check_can_fail():
    rows = [{"text": "快递三天没动静了，再不发货就退款"}]
    changed = [{"text": "快递三天没动静了！再不发货就退款了"}]
    assert near_duplicates(rows, changed, 0.8)


def test_a_third_of_the_causes_come_in_company_and_some_rows_have_none():
    rows = [row for part in rows_of("complaint_cause").values() for row in part]
    assert sum(len(row["labels"]) >= 2 for row in rows) >= len(rows) / 3
    assert sum(not row["labels"] for row in rows) >= 50


@pytest.mark.parametrize("task", TASKS)
def test_hard_cases_are_marked(task):
    rows = [row for part in rows_of(task).values() for row in part]
    assert sum(bool(row["marks"]) for row in rows) >= len(rows) / 5


@pytest.mark.parametrize("task", TASKS)
def test_guidelines_and_card_cover_every_label(task):
    folder = find_task(task)
    guidelines = (folder / "guidelines.md").read_text(encoding="utf-8")
    for label in load_task(folder).labels:
        assert label.name in guidelines and label.zh and label.definition, label.name
    card = (folder / "README.md").read_text(encoding="utf-8")
    total = sum(map(len, rows_of(task).values()))
    assert f"{total:,}" in card or str(total) in card, "the card's total is not the corpus's"


@pytest.mark.parametrize("task", TASKS)
def test_no_line_holds_a_mailbox_or_a_link(task):
    for part in rows_of(task).values():
        for row in part:
            assert not re.search(r"https?://|\w@\w+\.\w", row["text"]), row["text"]


def test_the_card_of_the_interactions_says_that_they_are_synthetic():
    card = Path(find_task("intent")).parents[1] / "interactions" / "README.md"
    assert "synthetic" in card.read_text(encoding="utf-8").lower()
