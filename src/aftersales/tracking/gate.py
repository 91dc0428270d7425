"""The gate: a run becomes champion only when it beats its floor and the champion on the same test rows.

First version: two rules on the headline metric, each with its paired interval for people to read. Candidate and
champion are both scored anew, from their files, on the candidate's test rows, so that the figures speak of the same
texts and of the models that would be served.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from aftersales.core.errors import AftersalesError, TrackingError
from aftersales.corpora.labelled import MIN_TEST_ROWS
from aftersales.evaluation.classification import Difference, difference, plain_metric
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.rank_metrics import gains
from aftersales.evaluation.ranking import served_ranks
from aftersales.runtime.classifier import Classifier
from aftersales.runtime.events import PastEvent
from aftersales.runtime.recommender import Recommender
from aftersales.tracking.registry import (
    PASSED,
    VERDICT,
    champion,
    crown,
    evidence_of,
    keep_verdict,
    model_folder_of,
    run_of,
)

# What a row of the evidence asks, and its right answer.
QUESTION = ("text", "gold", "history", "kinds", "days_ago", "target")


class GateRefused(AftersalesError):
    """The candidate does not pass; the message holds every line of the report."""


@dataclass(frozen=True)
class Line:
    """One rule of the gate and what it found."""

    passed: bool
    rule: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.rule}"


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a run: every line, and the new version when all passed."""

    task: str
    run_name: str
    lines: list[Line]
    version: str | None

    def report(self) -> str:
        """Return the report as text."""
        end = f"champion of {self.task} is now version {self.version}" if self.version else "the champion stays"
        return "\n".join([f"gate for {self.task}, run {self.run_name}", *map(str, self.lines), end])


def promote(run_id: str, changed_test: bool = False) -> Verdict:
    """Put a run through the gate and make it the champion of its task when it passes; the run keeps the verdict.

    Args:
        run_id: id or unique name of the run.
        changed_test: the test rows were changed on purpose, so they may be others than the champion's.

    Raises:
        TrackingError: the run does not exist or lacks its evidence.
        GateRefused: a rule failed; the registry is unchanged.
    """
    run = run_of(run_id)
    task = run.data.tags.get("task")
    if task is None:
        raise TrackingError(f"run {run.info.run_name!r} was not logged by `aftersales train` (it has no tag 'task')")
    lines = judge(run, task, changed_test)
    passed = all(line.passed for line in lines)
    version = crown(run, "\n".join(map(str, lines))) if passed else None
    if run.data.tags.get(VERDICT) != PASSED:  # a former champion's stays
        keep_verdict(run, [line.rule for line in lines if not line.passed])
    verdict = Verdict(task, str(run.info.run_name), lines, version)
    if not passed:
        raise GateRefused(verdict.report())
    return verdict


def judge(run: mlflow.entities.Run, task: str, changed_test: bool = False) -> list[Line]:
    """Return the gate's lines for a run, without changing anything; see ``promote``."""
    evaluation, rows = _read(evidence_of(run))
    compare = _compare_ranks if evaluation["kind"] == "recommender" else _compare_labels
    candidate = model_folder_of(run)
    enough = Line(len(rows) >= MIN_TEST_ROWS, f"is measured on {len(rows)} test rows, at least {MIN_TEST_ROWS}")
    lines = [enough, _line("beats its floor", compare(evaluation, rows, candidate, None))]
    reigning = champion(task)
    if reigning is None:
        return [*lines, Line(True, "there is no champion yet")]
    if reigning.run_id == run.info.run_id:
        return [*lines, Line(False, f"the run is the champion already (version {reigning.version})")]
    lines += _same_yardstick(evaluation, rows, evidence_of(run_of(reigning.run_id)), changed_test)
    rule = f"beats the champion (version {reigning.version}) on the same {len(rows)} test rows"
    return [*lines, _line(rule, compare(evaluation, rows, candidate, reigning.folder))]


def _read(evidence: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures and the test rows of a run."""
    rows = (evidence / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    evaluation: dict[str, Any] = json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation, [json.loads(row) for row in rows]


def _same_yardstick(
    evaluation: dict[str, Any], rows: list[dict[str, Any]], reigning: Path, changed_test: bool
) -> list[Line]:
    """A candidate may not win by measuring something else, or by leaving out rows or a label that are hard."""
    known, known_rows = _read(reigning)
    lines = []
    asked, known_asked = ({json.dumps([row.get(k) for k in QUESTION]) for row in one} for one in (rows, known_rows))
    if asked != known_asked:
        others = (
            f"{len(asked - known_asked)} of its {len(asked)} test rows are new, {len(known_asked - asked)} are gone"
        )
        way_out = "accepted by --changed-test" if changed_test else "if that is meant, promote with --changed-test"
        lines.append(Line(changed_test, f"is measured on the champion's test rows: {others}; {way_out}"))
    for what in ("metric", "labels", "exclude_history"):
        ours, theirs = evaluation.get(what), known.get(what)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            ours, theirs = sorted(ours), sorted(theirs)
        if ours != theirs:
            lines.append(Line(False, f"is measured like the champion: {what} is {ours}, the champion's is {theirs}"))
    return lines


Found = tuple[str, float, float, str]


def _line(rule: str, found: Found) -> Line:
    metric, ours, theirs, difference_text = found
    return Line(ours > theirs, f"{rule}: {metric} {ours:.4f} against {theirs:.4f}, difference {difference_text}")


def _compare_labels(
    evaluation: dict[str, Any], rows: list[dict[str, Any]], candidate: Path, reigning: Path | None
) -> Found:
    """Compare the model in ``candidate`` with its floor, or with the champion in ``reigning``."""
    metric, names = evaluation["metric"], list(evaluation["labels"])
    gold, ours = _matrix(rows, "gold", names), _answers(candidate, rows, names)
    theirs = _answers(reigning, rows, names) if reigning else _matrix(rows, "floor", names)
    found = difference(metric, gold, ours, theirs)
    value = plain_metric(metric, gold, ours)
    return metric, value, value - found.value, str(found)


def _answers(folder: Path, rows: list[dict[str, Any]], names: list[str]) -> np.ndarray:
    """Return what a model answers to the texts of the rows, boolean of shape (rows, labels)."""
    classifier = Classifier.load(folder)
    found = classifier.predict([row["text"] for row in rows], top_k=1)
    return _matrix([{"answer": [label.name for label in one.labels]} for one in found], "answer", names)


def _matrix(rows: list[dict[str, Any]], column: str, names: list[str]) -> np.ndarray:
    return np.array([[name in row[column] for name in names] for row in rows], dtype=bool)


def _compare_ranks(
    evaluation: dict[str, Any], rows: list[dict[str, Any]], candidate: Path, reigning: Path | None
) -> Found:
    """Compare the recommender in ``candidate`` with its floor, or with the champion in ``reigning``."""
    metric, candidates = evaluation["metric"], set(evaluation["candidates"])
    histories, targets = [history_of(row) for row in rows], [row["target"] for row in rows]

    def ranks(folder: Path) -> np.ndarray:
        model = Recommender.load(folder)
        return served_ranks(model, histories, targets, candidates, evaluation["exclude_history"])

    ours = gains(metric, ranks(candidate))
    theirs = gains(metric, ranks(reigning) if reigning else np.array([row["floor_rank"] for row in rows]))
    low, high = bootstrap_interval(ours - theirs)
    found = Difference(float(np.mean(ours - theirs)), low, high)
    return metric, float(ours.mean()), float(theirs.mean()), str(found)


def history_of(row: dict[str, Any]) -> list[PastEvent]:
    """Return the history in a row of a recommender's evidence; older rows say neither what was done nor when."""
    unsaid = [None] * len(row["history"])
    columns = row["history"], row.get("kinds", unsaid), row.get("days_ago", unsaid)
    return [PastEvent(*event) for event in zip(*columns, strict=True)]
