"""Two variants, one metric: the difference, the relative lift, their 95 % intervals and the p-value."""

from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aftersales.core.errors import DataError

LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """What a treatment changes.

    Attributes:
        control, treatment: the metric in both.
        difference, difference_interval: treatment minus control.
        lift, lift_interval: treatment over control minus 1; None where control cannot be told from zero or below.
        p: two-sided p-value of no difference.
    """

    control: float
    treatment: float
    difference: float
    difference_interval: Interval
    lift: float | None
    lift_interval: Interval | None
    p: float


def compare_means(control: NDArray[np.float64], treatment: NDArray[np.float64]) -> Effect:
    """Compare two means by Welch's test (1947), which lets the variances differ.

    Args:
        control: one value a user, shape (users of control,).
        treatment: likewise.

    Raises:
        DataError: a variant has fewer than two users, or no user differs from another.
    """
    if min(len(control), len(treatment)) < 2:
        raise DataError("a variant has fewer than two users; a spread cannot be seen")
    if not (np.ptp(control) or np.ptp(treatment)):
        raise DataError("the metric is the same for every user of a variant; leave it out or check its column")
    test = stats.ttest_ind(treatment, control, equal_var=False)
    interval = test.confidence_interval(LEVEL)
    low_mean, high_mean = float(control.mean()), float(treatment.mean())
    variances = float(control.var(ddof=1)) / len(control), float(treatment.var(ddof=1)) / len(treatment)
    lift = _lift(low_mean, high_mean, *variances)
    return Effect(
        control=low_mean,
        treatment=high_mean,
        difference=high_mean - low_mean,
        difference_interval=(float(interval.low), float(interval.high)),
        lift=None if lift is None else high_mean / low_mean - 1,
        lift_interval=lift,
        p=float(test.pvalue),
    )


def _lift(control: float, treatment: float, control_variance: float, treatment_variance: float) -> Interval | None:
    """Return the interval of the relative lift by the delta method (Deng, Knoblich & Lu 2018, section 3).

    The variances are those of the means.
    """
    z = float(stats.norm.isf((1 - LEVEL) / 2))
    if control <= z * sqrt(control_variance):
        return None
    ratio = treatment / control
    half = z * sqrt(treatment_variance + ratio**2 * control_variance) / control
    return ratio - 1 - half, ratio - 1 + half


def compare_proportions(control: NDArray[np.float64], treatment: NDArray[np.float64]) -> Effect:
    """Compare two proportions: the interval of Newcombe (1998, method 10), and the pooled test (Pearson 1900).

    The lift has the interval of Katz, Baptista, Azen & Pike (1978).

    Args:
        control: 0 or 1 a user, shape (users of control,).
        treatment: likewise.

    Raises:
        DataError: a variant has no user.
    """
    if not (len(control) and len(treatment)):
        raise DataError("a variant has no users")
    hits, sizes = (int(control.sum()), int(treatment.sum())), (len(control), len(treatment))
    low_share, high_share = hits[0] / sizes[0], hits[1] / sizes[1]
    wilson = [
        stats.binomtest(hit, size).proportion_ci(LEVEL, method="wilson") for hit, size in zip(hits, sizes, strict=True)
    ]
    difference = high_share - low_share
    below = hypot(high_share - wilson[1].low, wilson[0].high - low_share)
    above = hypot(wilson[1].high - high_share, low_share - wilson[0].low)
    table = [[hit, size - hit] for hit, size in zip(hits, sizes, strict=True)]
    alike = sum(hits) in (0, sum(sizes))
    return Effect(
        control=low_share,
        treatment=high_share,
        difference=difference,
        difference_interval=(difference - below, difference + above),
        lift=difference / low_share if all(hits) else None,
        lift_interval=_relative_risk(hits, sizes) if all(hits) else None,
        p=1.0 if alike else float(stats.chi2_contingency(table, correction=False).pvalue),
    )


def _relative_risk(hits: tuple[int, int], sizes: tuple[int, int]) -> Interval:
    risk = stats.contingency.relative_risk(hits[1], sizes[1], hits[0], sizes[0]).confidence_interval(LEVEL)
    return float(risk.low) - 1, float(risk.high) - 1


def holm(p: list[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1) * np.asarray(p)[order]
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in out]
