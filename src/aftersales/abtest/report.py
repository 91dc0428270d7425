"""The result of an A/B test, as data and as plain text."""

from typing import Literal

from pydantic import BaseModel

from aftersales.abtest.checks import MISMATCH
from aftersales.abtest.compare import LEVEL

Kind = Literal["proportion", "mean", "ratio"]
Verdict = Literal["higher", "lower", "no clear difference", "too early"]


class Comparison(BaseModel):
    """One metric of one treatment against control. The intervals are not corrected for the number of comparisons.

    Attributes:
        kind: ``proportion`` when every user has 0 or 1.
        variance_kept: share of the variance that CUPED left; None without.
        p_corrected: by Holm, over all comparisons of the report.
        verdict: from ``p_corrected``; ``higher`` need not be better.
    """

    metric: str
    variant: str
    kind: Kind
    control: float
    treatment: float
    difference: float
    difference_interval: tuple[float, float]
    lift: float | None
    lift_interval: tuple[float, float] | None
    p: float
    p_corrected: float
    verdict: Verdict
    variance_kept: float | None


class Report(BaseModel):
    """The result of an experiment.

    Attributes:
        users: variant -> users.
        expected: variant -> share of the users that it should have.
        ratio_p: p-value of a ratio as uneven as this by chance.
        comparisons: empty when the verdict is withheld.
        withheld: why there is no comparison.
        warnings: what limits the conclusions.
    """

    control: str
    users: dict[str, int]
    expected: dict[str, float]
    ratio_p: float
    comparisons: list[Comparison]
    withheld: str | None
    warnings: list[str]


def text_of(report: Report) -> str:
    """Return the report as plain text."""
    total = sum(report.users.values())
    lines = [
        f"{name:<20} {users:>10,} users  {users / total:7.2%} of {report.expected[name]:.2%} expected"
        + ("  (control)" if name == report.control else "")
        for name, users in report.users.items()
    ]
    lines += [
        f"sample ratio: p = {report.ratio_p:.3g}, {'MISMATCH' if report.ratio_p < MISMATCH else 'as expected'}",
        "",
    ]
    if report.withheld is None:
        lines += _aligned([_HEAD, *(_cells(one) for one in report.comparisons)])
    lines += [f"note: {warning}" for warning in report.warnings]
    return "\n".join(lines)


_HEAD = (
    *("metric", "variant", "control", "treatment", f"difference [{LEVEL:.0%}]", f"lift [{LEVEL:.0%}]"),
    *("p", "p (Holm)", "verdict"),
)


def _cells(one: Comparison) -> tuple[str, ...]:
    low, high = one.difference_interval
    lift = "-"
    if one.lift is not None and one.lift_interval is not None:
        lift = f"{one.lift:+.2%} [{one.lift_interval[0]:+.2%}, {one.lift_interval[1]:+.2%}]"
    return (
        one.metric,
        one.variant,
        f"{one.control:.5g}",
        f"{one.treatment:.5g}",
        f"{one.difference:+.4g} [{low:+.4g}, {high:+.4g}]",
        lift,
        _shown_p(one.p),
        _shown_p(one.p_corrected),
        one.verdict,
    )


def _shown_p(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, ""]
