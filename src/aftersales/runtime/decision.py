"""From probabilities to a decision: answer, clarify or hand off to a human, and why."""

from collections.abc import Set
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from aftersales.runtime.settings import InferenceSettings


class ScoredLabel(BaseModel):
    """A label with its calibrated probability."""

    name: str
    zh: str
    group: str | None = None
    group_zh: str | None = None
    score: float = Field(ge=0, le=1)


class Prediction(BaseModel):
    """The answer for one text.

    Attributes:
        labels: single-label tasks: the likeliest labels, best first; multi-label tasks: every label given, best
            first, possibly none.
        confidence: calibrated probability that the answer is right (multi-label: that every label of it is).
        decision: ``answer``: act on it; ``clarify``: ask the customer back; ``handoff``: give it to a human.
        reason: why, as a fixed word that programs can test.
    """

    labels: list[ScoredLabel]
    confidence: float = Field(ge=0, le=1)
    decision: Literal["answer", "clarify", "handoff"]
    reason: Literal["confident", "unsure", "very_unsure", "out_of_scope", "needs_human"]

    def flat(self) -> dict[str, str | float]:
        """Return one row of a table; several labels are joined by ``|``."""
        return {
            "label": "|".join(label.name for label in self.labels),
            "label_zh": "|".join(label.zh for label in self.labels),
            "confidence": round(self.confidence, 4),
            "decision": self.decision,
            "reason": self.reason,
        }


def decide(probabilities: np.ndarray, settings: InferenceSettings, top_k: int = 3) -> Prediction:
    """Rank the labels of one text and decide.

    Args:
        probabilities: calibrated, shape (labels,).
        settings: thresholds and label names.
        top_k: how many labels of a single-label task to return.
    """
    order = np.argsort(-probabilities, kind="stable")
    if settings.kind == "multi_label":
        given = [int(index) for index in order if probabilities[index] >= settings.label_threshold]
        raw = label_confidence(probabilities[None], settings.label_threshold)
        confidence = float(rescaled(raw, settings.confidence_scale, settings.confidence_shift)[0])
    else:
        given = [int(index) for index in order[:top_k]]
        confidence = float(probabilities[order[0]])
    answer = given if settings.kind == "multi_label" else given[:1]
    decision, reason = _policy({settings.labels[index].name for index in answer}, confidence, settings)
    labels = [ScoredLabel(**settings.labels[index].model_dump(), score=float(probabilities[index])) for index in given]
    return Prediction(labels=labels, confidence=confidence, decision=decision, reason=reason)


def label_confidence(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return for each row of (rows, labels) how sure the least sure yes/no answer is, in 0 to 1.

    The threshold is stretched to one half, so that a probability at the threshold is a coin's throw.
    """
    stretched = np.where(
        probabilities >= threshold,
        0.5 + 0.5 * (probabilities - threshold) / (1 - threshold),
        0.5 * probabilities / threshold,
    )
    return np.asarray(np.abs(2 * stretched - 1).min(axis=1) / 2 + 0.5)


def rescaled(confidence: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Turn raw confidences into probabilities that the whole answer is right (Platt 1999): 1 and 0 change nothing."""
    inside = np.clip(confidence, 1e-6, 1 - 1e-6)
    return np.asarray(1 / (1 + np.exp(-(scale * np.log(inside / (1 - inside)) + shift))))


def _policy(
    given: Set[str], confidence: float, settings: InferenceSettings
) -> tuple[
    Literal["answer", "clarify", "handoff"],
    Literal["confident", "unsure", "very_unsure", "out_of_scope", "needs_human"],
]:
    if settings.out_of_scope in given:
        return "handoff", "out_of_scope"
    if not given.isdisjoint(settings.handoff_labels):
        return "handoff", "needs_human"
    if confidence >= settings.answer_threshold:
        return "answer", "confident"
    if confidence >= settings.clarify_threshold:
        return "clarify", "unsure"
    return "handoff", "very_unsure"
