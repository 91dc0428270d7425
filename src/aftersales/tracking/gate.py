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
from aftersales.evaluation.classification import difference, metric_values
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.ranking import gains, served_ranks
from aftersales.runtime.classifier import Classifier
from aftersales.runtime.recommender import Recommender
from aftersales.tracking.registry import champion, crown, evidence_of, keep_verdict, model_folder_of, run_of


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


def promote(run_id: str) -> Verdict:
    """Put a run through the gate and make it the champion of its task when it passes; the run keeps the verdict.

    Raises:
        TrackingError: the run does not exist or lacks its evidence.
        GateRefused: a rule failed; the registry is unchanged.
    """
    run = run_of(run_id)
    task = run.data.tags.get("task")
    if task is None:
        raise TrackingError(f"run {run.info.run_name!r} was not logged by `aftersales train` (it has no tag 'task')")
    lines = judge(run, task)
    passed = all(line.passed for line in lines)
    reigning = champion(task)
    if reigning is None or reigning.run_id != run.info.run_id:
        keep_verdict(run, [line.rule for line in lines if not line.passed])
    version = crown(run, "\n".join(map(str, lines))) if passed else None
    verdict = Verdict(task, str(run.info.run_name), lines, version)
    if not passed:
        raise GateRefused(verdict.report())
    return verdict


def judge(run: mlflow.entities.Run, task: str) -> list[Line]:
    """Return the gate's lines for a run, without changing anything."""
    evidence = evidence_of(run)
    evaluation = json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (evidence / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    compare = _compare_ranks if evaluation["kind"] == "recommender" else _compare_labels
    candidate = model_folder_of(run)
    lines = [_line("beats its floor", compare(evaluation, rows, candidate, None))]
    reigning = champion(task)
    if reigning is None:
        return [*lines, Line(True, "there is no champion yet")]
    if reigning.run_id == run.info.run_id:
        return [*lines, Line(False, f"the run is the champion already (version {reigning.version})")]
    lines += _same_yardstick(evaluation, evidence_of(run_of(reigning.run_id)))
    rule = f"beats the champion (version {reigning.version}) on the same {len(rows)} test rows"
    return [*lines, _line(rule, compare(evaluation, rows, candidate, reigning.folder))]


def _same_yardstick(evaluation: dict[str, Any], reigning: Path) -> list[Line]:
    """A candidate may not win by measuring something else, or by leaving out a label that is hard."""
    known = json.loads((reigning / "evaluation.json").read_text(encoding="utf-8"))
    lines = []
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
    value = float(metric_values(gold, ours, np.ones((1, len(gold))))[metric][0])
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
    histories, targets = [row["history"] for row in rows], [row["target"] for row in rows]

    def ranks(folder: Path) -> np.ndarray:
        model = Recommender.load(folder)
        return served_ranks(model, histories, targets, candidates, evaluation["exclude_history"])

    ours = gains(metric, ranks(candidate))
    theirs = gains(metric, ranks(reigning) if reigning else np.array([row["floor_rank"] for row in rows]))
    low, high = bootstrap_interval(ours - theirs)
    shown = f"{float(np.mean(ours - theirs)):+.4f} [{low:+.4f}, {high:+.4f}]"
    return metric, float(ours.mean()), float(theirs.mean()), shown
