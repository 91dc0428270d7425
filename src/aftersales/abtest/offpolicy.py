"""What another policy would have earned, estimated from the log of the one that ran.

A policy shows one item of several by chance; the log holds the chance (propensity) of what was shown. Weighting each
row by how much likelier the new policy would have shown it makes the log speak of the new policy (Horvitz & Thompson
1952, "A Generalization of Sampling Without Replacement From a Finite Universe"). What the old policy never shows, no
weight can bring back. Rows of a list count as rows of their own, which takes the reward of an item to depend on that
item alone.
"""

from collections import Counter
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from aftersales.abtest.cells import COLUMN_OPTIONS, number_cell, required_cell
from aftersales.core.config import Config
from aftersales.core.errors import DataError
from aftersales.corpora.tables import read_rows
from aftersales.evaluation.intervals import resampled_means

LEVEL = 0.95
# Below, the interval no longer covers what it promises; see the simulation in the tests.
FEWEST_EFFECTIVE = 100
# Standard errors from which a mean weight is not 1 by chance (once in a thousand logs).
SURE = 3.3


class OffPolicyRequest(Config):
    """What to estimate from.

    Attributes:
        log: table with one row for each item shown.
        user_column: who saw it; users are what the bootstrap draws.
        propensity_column: chance with which the logging policy showed the item, in (0, 1].
        target_column: chance with which the new policy would show the same item there, in [0, 1]; 0 or 1 for a policy
            that leaves nothing to chance.
        reward_column: what came of it, such as 1 for a click.
        clip: largest weight of the clipped estimate; the square root of the number of rows unless given.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """

    log: Path
    user_column: str = "user_id"
    propensity_column: str = "propensity"
    target_column: str = "target_propensity"
    reward_column: str = "reward"
    clip: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    resamples: int = Field(default=1000, ge=100)


class Estimate(BaseModel):
    """Reward a row, and how far it is from the logging policy's; both with bootstrap intervals over users."""

    value: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


class OffPolicyReport(BaseModel):
    """The estimates.

    Attributes:
        rows, users: that were used.
        left_out: reason -> rows without a usable propensity.
        effective_rows: rows of equal weight that would say as much: (sum of weights)² over sum of squares (Kish 1965).
        weight: mean weight, 1 when the propensities are right and the old policy may show all that the new one shows.
        clip, clipped: largest weight of the clipped estimate, and the share of the rows that reach it.
        logged: reward a row of the logging policy.
        estimates: ``ips``: unbiased, and wild when weights are large. ``snips``: divided by the mean weight, slightly
            biased and steadier: the one to look at (Swaminathan & Joachims 2015, "The Self-Normalized Estimator for
            Counterfactual Learning"). ``clipped``: weights cut at ``clip``, too small when rewards are positive
            (Ionides 2008, "Truncated Importance Sampling").
        warnings: what limits the conclusions.
    """

    rows: int
    users: int
    left_out: dict[str, int]
    effective_rows: float
    weight: float
    weight_interval: tuple[float, float]
    clip: float
    clipped: float
    logged: float
    logged_interval: tuple[float, float]
    estimates: dict[str, Estimate]
    warnings: list[str]


@dataclass(frozen=True)
class Log:
    """Rows that can be used.

    Attributes:
        users: row -> number of its user from 0, int64 of shape (rows,).
        weights: target over logged propensity, shape (rows,).
        rewards: shape (rows,).
        left_out: reason -> rows.
    """

    users: NDArray[np.int64]
    weights: NDArray[np.float64]
    rewards: NDArray[np.float64]
    left_out: dict[str, int]


def estimate(request: OffPolicyRequest) -> OffPolicyReport:
    """Estimate from a file.

    Raises:
        DataError: see ``read_log`` and ``evaluate``.
    """
    return evaluate(read_log(request), request.clip, request.seed, request.resamples)


def read_log(request: OffPolicyRequest) -> Log:
    """Read the log; rows without a usable propensity are left out and counted.

    Raises:
        DataError: a missing file or column, no rows, a row without user or reward, or a target outside [0, 1]; the line
            is named.
    """
    numbers: dict[str, int] = {}
    rows: list[tuple[int, float, float]] = []
    left_out: Counter[str] = Counter()
    columns = (request.user_column, request.propensity_column, request.target_column, request.reward_column)
    for line, row in read_rows(request.log, columns, COLUMN_OPTIONS):
        where = f"{request.log} line {line}"
        user = required_cell(row, request.user_column, where)
        target = _required_number(row, request.target_column, where)
        reward = _required_number(row, request.reward_column, where)
        if not 0 <= target <= 1:
            raise DataError(f"{where}: column {request.target_column!r} holds {target:g}; a chance lies in 0 to 1")
        propensity = number_cell(row, request.propensity_column, where)
        if problem := _unusable(propensity):
            left_out[problem] += 1
            continue
        assert propensity is not None  # else it is unusable
        rows.append((numbers.setdefault(user, len(numbers)), target / propensity, reward))
    if not rows:
        raise DataError(
            f"{request.log}: no row has a propensity in (0, 1]; log the chance with which each item was shown"
        )
    users, weights, rewards = zip(*rows, strict=True)
    return Log(np.array(users, np.int64), np.array(weights, float), np.array(rewards, float), dict(left_out))


def _required_number(row: dict[str, Any], column: str, where: str) -> float:
    value = number_cell(row, column, where)
    if value is None:
        raise DataError(f"{where}: column {column!r} is empty or NaN; fill it or remove the row")
    return value


def _unusable(propensity: float | None) -> str | None:
    if propensity is None:
        return "missing"
    if propensity == 0:
        return "zero"
    return None if 0 < propensity <= 1 else "outside (0, 1]"


def evaluate(log: Log, clip: float | None = None, seed: int = 0, resamples: int = 1000) -> OffPolicyReport:
    """Estimate the value of the new policy from weighted rows.

    Args:
        log: the rows.
        clip: see ``OffPolicyRequest``.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        DataError: all weights are zero.
    """
    if not log.weights.any():
        raise DataError(
            "the new policy shows nothing of what was logged (every weight is 0): the log says nothing of it"
        )
    rows = len(log.weights)
    clip = sqrt(rows) if clip is None else clip
    cut = np.minimum(log.weights, clip)
    per_row = (np.ones(rows), log.rewards, log.weights, log.weights * log.rewards, cut * log.rewards)
    sums = np.stack([np.bincount(log.users, weights=values) for values in per_row], axis=1).astype(np.float64)
    point = _ratios(sums.mean(axis=0)[None])
    drawn = _ratios(resampled_means(sums, seed, resamples))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    apart = np.nanquantile(drawn - drawn[:, :1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    estimates = {
        name: Estimate(
            value=float(point[0, place]),
            interval=intervals[place],
            difference=float(point[0, place] - point[0, 0]),
            difference_interval=(float(apart[0, place]), float(apart[1, place])),
        )
        for place, name in enumerate(("ips", "snips", "clipped"), 2)
    }
    report = OffPolicyReport(
        rows=rows,
        users=len(sums),
        left_out=log.left_out,
        effective_rows=float(log.weights.sum() ** 2 / (log.weights**2).sum()),
        weight=float(point[0, 1]),
        weight_interval=intervals[1],
        clip=clip,
        clipped=float((log.weights > clip).mean()),
        logged=float(point[0, 0]),
        logged_interval=intervals[0],
        estimates=estimates,
        warnings=[],
    )
    unlike_one = abs(report.weight - 1) > SURE * float(drawn[:, 1].std())
    return report.model_copy(update={"warnings": _warnings(report, unlike_one)})


def _ratios(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn means a user of (rows, rewards, weights, weighted, clipped) into the figures a row, shape (n, 5)."""
    rows, rewards, weights, weighted, clipped = means.T
    with np.errstate(invalid="ignore", divide="ignore"):  # a sample in which every weight is zero has no SNIPS
        return np.column_stack([rewards / rows, weights / rows, weighted / rows, weighted / weights, clipped / rows])


def _warnings(report: OffPolicyReport, unlike_one: bool) -> list[str]:
    found = []
    if report.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.left_out.items())
        found.append(
            f"rows without a usable propensity are left out: {reasons}. What they showed is missing from every "
            "estimate; log the chance of each item that is shown"
        )
    if report.effective_rows < FEWEST_EFFECTIVE:
        found.append(
            f"the effective sample is {report.effective_rows:.0f} of {report.rows:,} rows: a few rows carry the "
            "estimates and the intervals are too narrow. The new policy is too far from the logged one; run an A/B test"
        )
    if unlike_one:
        low, high = report.weight_interval
        found.append(
            f"the mean weight is {report.weight:.3f} [{low:.3f}, {high:.3f}] and not 1: the propensities are wrong, or "
            "the new policy shows items that the logged one never shows. Neither estimate can be trusted"
        )
    if report.clipped:
        found.append(f"{report.clipped:.2%} of the rows are cut to the weight {report.clip:g} in the clipped estimate")
    return found


def text_of(report: OffPolicyReport) -> str:
    """Return the report as plain text."""
    low, high = report.logged_interval
    lines = [
        f"{report.rows:,} rows of {report.users:,} users, effective sample {report.effective_rows:,.0f} rows, "
        f"mean weight {report.weight:.3f}",
        "",
        f"{'':<10}{f'reward a row [{LEVEL:.0%} interval]':<34}difference to the logged policy",
        f"{'logged':<10}{f'{report.logged:.5g} [{low:.5g}, {high:.5g}]'}",
    ]
    for name, one in report.estimates.items():
        shown = f"{one.value:.5g} [{one.interval[0]:.5g}, {one.interval[1]:.5g}]"
        apart = f"{one.difference:+.4g} [{one.difference_interval[0]:+.4g}, {one.difference_interval[1]:+.4g}]"
        lines.append(f"{name:<10}{shown:<34}{apart}")
    return "\n".join([*lines, "", *(f"note: {warning}" for warning in report.warnings)])
