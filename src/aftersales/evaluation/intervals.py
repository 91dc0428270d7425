"""How far a figure may be from the truth."""

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import DataError


def bootstrap_interval(
    values: NDArray[np.floating], seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron & Tibshirani 1993, section 13.3).

    For a paired comparison of two models give the differences of their values on the same rows.

    Args:
        values: one value a row or user, shape (n,).
        seed: of the resampling.
        resamples: how often n values are drawn anew.
        level: share of the resampled means that lie within the interval.

    Raises:
        DataError: there is no value.
    """
    if not len(values):
        raise DataError("an interval needs at least one value; the split is empty")
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_means(rows: NDArray[np.floating], seed: int = 0, resamples: int = 1000) -> NDArray[np.float64]:
    """Return the column means of bootstrap samples of the rows, for intervals of functions of means such as ratios.

    Args:
        rows: what is drawn as a whole, one user or text a row, shape (n, k).
        seed: of the resampling.
        resamples: how often n rows are drawn anew.

    Returns:
        Shape (resamples, k).

    Raises:
        DataError: there is no row.
    """
    if not len(rows):
        raise DataError("an interval needs at least one row; the table is empty")
    random = np.random.default_rng(seed)
    n = len(rows)
    return np.stack([np.bincount(random.integers(0, n, n), minlength=n) @ rows / n for _ in range(resamples)])
