"""Classification metrics, their bootstrap intervals and paired differences, all by one matrix product.

A resample of the test rows is a vector of row weights. True positives, predicted and gold counts a label are then
``weights @ (gold * predicted)`` and so on, so a thousand resamples cost one matrix product instead of a thousand
calls (percentile bootstrap: Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Figure:
    """A metric on a test set with its 95 % bootstrap interval over the rows."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """Metric of A minus metric of B on the same rows, with the 95 % interval of the paired bootstrap."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        doubt = "" if self.significant else ", which may be chance"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]{doubt}"


def metric_values(gold: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics for every weighting of the rows.

    Args:
        gold: boolean, shape (rows, labels).
        predicted: boolean, shape (rows, labels).
        weights: row weights, shape (resamples, rows).

    Returns:
        accuracy (all labels of a row right), macro, micro and weighted F1, each of shape (resamples,). A label with
        neither gold nor predicted rows in a resample has no F1 and is left out of its mean.
    """
    weights = weights.astype(np.float32)
    true_positive = weights @ (gold & predicted).astype(np.float32)
    gold_count = weights @ gold.astype(np.float32)
    both = gold_count + weights @ predicted.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(both > 0, 2 * true_positive / both, np.nan)
        micro = 2 * true_positive.sum(1) / both.sum(1)
        weighted = np.nansum(f1 * gold_count, axis=1) / gold_count.sum(1)
    right = (gold == predicted).all(axis=1).astype(np.float32)
    return {
        "accuracy": weights @ right / weights.sum(1),
        "macro_f1": np.nanmean(f1, axis=1),
        "micro_f1": micro,
        "weighted_f1": weighted,
    }


def plain_metric(metric: str, gold: np.ndarray, predicted: np.ndarray) -> float:
    """Return one metric of ``metric_values`` with every row counted once."""
    return float(metric_values(gold, predicted, np.ones((1, len(gold))))[metric][0])


def resample_weights(rows: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return how often each row is drawn in each resample, shape (resamples, rows)."""
    random = np.random.default_rng(seed)
    return random.multinomial(rows, np.full(rows, 1 / rows), size=resamples).astype(np.float32)


def figures(gold: np.ndarray, predicted: np.ndarray) -> dict[str, Figure]:
    """Return every metric with its 95 % interval; arguments as in ``metric_values``."""
    point = metric_values(gold, predicted, np.ones((1, len(gold))))
    spread = metric_values(gold, predicted, resample_weights(len(gold)))
    return {name: Figure(float(point[name][0]), *_interval(spread[name])) for name in point}


def difference(metric: str, gold: np.ndarray, a: np.ndarray, b: np.ndarray) -> Difference:
    """Return the paired difference of one metric between predictions ``a`` and ``b`` on the same rows."""
    ones, weights = np.ones((1, len(gold))), resample_weights(len(gold))
    point = metric_values(gold, a, ones)[metric] - metric_values(gold, b, ones)[metric]
    spread = metric_values(gold, a, weights)[metric] - metric_values(gold, b, weights)[metric]
    return Difference(float(point[0]), *_interval(spread))


def over_seeds(
    metric: str, gold: np.ndarray, runs: Sequence[np.ndarray], floors: Sequence[np.ndarray]
) -> tuple[Figure, Difference]:
    """Return the mean of a metric over several trainings, and its difference to the floor on the same rows.

    The interval covers both what another sample of test rows and what other seeds would have given: every resample
    draws rows and, with replacement, trainings (Efron and Tibshirani 1993, section 8.3).

    Args:
        metric: its name.
        gold: boolean, shape (rows, labels).
        runs: predictions of each training, boolean of that shape.
        floors: predictions of the floor beside each training, likewise.
    """
    ones, weights = np.ones((1, len(gold))), resample_weights(len(gold))
    picked = np.random.default_rng(1).integers(0, len(runs), size=(len(weights), len(runs)))
    resample = np.arange(len(weights))[:, None]

    def means(predicted: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        point = np.mean([metric_values(gold, one, ones)[metric][0] for one in predicted])
        spread = np.stack([metric_values(gold, one, weights)[metric] for one in predicted])
        return float(point), spread[picked, resample].mean(axis=1)

    (value, spread), (below, spread_below) = means(runs), means(floors)
    return Figure(value, *_interval(spread)), Difference(value - below, *_interval(spread - spread_below))


def per_label(gold: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and the number of gold rows of each label."""
    true_positive = (gold & predicted).sum(0)
    gold_count, predicted_count = gold.sum(0), predicted.sum(0)
    table = {}
    for index, label in enumerate(labels):
        hits, wanted, given = int(true_positive[index]), int(gold_count[index]), int(predicted_count[index])
        table[label] = {
            "precision": hits / given if given else 0.0,
            "recall": hits / wanted if wanted else 0.0,
            "f1": 2 * hits / (wanted + given) if wanted + given else 0.0,
            "rows": wanted,
        }
    return table


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Return the ECE over equal-width bins (Guo et al. 2017, section 2); both arguments of shape (rows,)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for bucket in range(bins):
        chosen = which == bucket
        if chosen.any():
            error += chosen.mean() * abs(confidence[chosen].mean() - right[chosen].mean())
    return float(error)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
