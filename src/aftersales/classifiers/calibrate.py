"""Temperature and thresholds, all chosen on validation data."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from aftersales.runtime.classifier import calibrated
from aftersales.runtime.decision import label_confidence, rescaled

# Above every confidence, also one that rounds to 1.
NEVER = 2.0
THRESHOLDS = np.linspace(0.1, 0.9, 81)


@dataclass(frozen=True)
class Calibration:
    """What turns logits into decisions; the fields are those of ``runtime.settings.InferenceSettings``."""

    temperature: float
    confidence_scale: float
    confidence_shift: float
    label_threshold: float
    answer_threshold: float
    clarify_threshold: float


def calibrate(logits: np.ndarray, gold: np.ndarray, multi_label: bool, precision: float) -> Calibration:
    """Choose the temperature by likelihood (Guo et al. 2017), then the thresholds.

    Args:
        logits: validation scores, shape (rows, labels).
        gold: boolean, shape (rows, labels).
        multi_label: any number of labels a text instead of one.
        precision: share of right answers wanted among those with the decision ``answer``; half-way between it and
            zero is wanted among those with the decision ``clarify``.
    """
    temperature = fit_temperature(logits, gold, multi_label)
    probabilities = calibrated(logits, temperature, multi_label)
    label_threshold = best_label_threshold(probabilities, gold) if multi_label else 0.5
    raw, right = judged(probabilities, gold, multi_label, label_threshold)
    scale, shift = fit_confidence(raw, right) if multi_label else (1.0, 0.0)
    confidence = rescaled(raw, scale, shift)
    answer = lowest_confidence(confidence, right, precision)
    unsure = confidence < answer
    return Calibration(
        temperature=temperature,
        confidence_scale=scale,
        confidence_shift=shift,
        label_threshold=label_threshold,
        answer_threshold=answer,
        clarify_threshold=min(answer, lowest_confidence(confidence[unsure], right[unsure], precision / 2)),
    )


def fit_temperature(logits: np.ndarray, gold: np.ndarray, multi_label: bool) -> float:
    """Return the temperature that makes the gold labels likeliest."""
    fitted = minimize_scalar(
        lambda log: _negative_log_likelihood(calibrated(logits, float(np.exp(log)), multi_label), gold, multi_label),
        bounds=(np.log(0.2), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(fitted.x))


def fit_confidence(raw: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return scale and shift of ``runtime.decision.rescaled`` that make what was right likeliest (Platt 1999).

    Args:
        raw: confidence of each row's least sure label, shape (rows,).
        right: whether every label of the row is right, shape (rows,).
    """
    smoothed = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))  # Platt's targets

    def loss(found: np.ndarray) -> float:
        chance = np.clip(rescaled(raw, float(found[0]), float(found[1])), 1e-7, 1 - 1e-7)
        return float(-(smoothed * np.log(chance) + (1 - smoothed) * np.log(1 - chance)).mean())

    found = minimize(loss, x0=np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.0, 20.0), (-20.0, 20.0)])
    return float(found.x[0]), float(found.x[1])


def best_label_threshold(probabilities: np.ndarray, gold: np.ndarray) -> float:
    """Return the threshold with the best micro-F1 on the given rows."""

    def f1(threshold: float) -> float:
        given = probabilities >= threshold
        return float(2 * (given & gold).sum() / max(1, given.sum() + gold.sum()))

    return float(max(THRESHOLDS, key=f1))


def judged(
    probabilities: np.ndarray, gold: np.ndarray, multi_label: bool, label_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw confidence of each row's answer and whether it is right, both of shape (rows,)."""
    given = predictions(probabilities, multi_label, label_threshold)
    confidence = label_confidence(probabilities, label_threshold) if multi_label else probabilities.max(axis=1)
    return confidence, (given == gold).all(axis=1)


def predictions(probabilities: np.ndarray, multi_label: bool, label_threshold: float) -> np.ndarray:
    """Return the labels given, boolean of the shape of ``probabilities``."""
    if multi_label:
        return probabilities >= label_threshold
    given = np.zeros(probabilities.shape, dtype=bool)
    given[np.arange(len(given)), probabilities.argmax(axis=1)] = True
    return given


def lowest_confidence(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    """Return the lowest confidence from which on the share of right answers is at least ``precision``.

    It is ``NEVER`` when no confidence is enough. Where every row may be answered, validation says nothing about less
    sure ones than it has; there the calibrated confidence is taken at its word.
    """
    if not len(confidence) or right.mean() >= precision:
        return float(min([precision, *confidence]))
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_its_value = np.append(ranked[1:] < ranked[:-1], True) if len(ranked) else np.zeros(0, dtype=bool)
    enough = np.flatnonzero((share >= precision) & last_of_its_value)
    return float(ranked[enough[-1]]) if len(enough) else NEVER


def _negative_log_likelihood(probabilities: np.ndarray, gold: np.ndarray, multi_label: bool) -> float:
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    if multi_label:
        return float(-np.where(gold, np.log(clipped), np.log(1 - clipped)).mean())
    return float(-np.log(clipped[gold]).mean())
