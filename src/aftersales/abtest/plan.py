"""Plan an A/B test: from what is known before to the users it needs, the effect it can detect, or its power."""

from math import ceil, sqrt
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from aftersales.abtest.metrics import adjusted, kind_of, parse_metrics, samples
from aftersales.abtest.power import Design, Mean, Proportion, detectable, power, users_needed
from aftersales.abtest.users import read_users
from aftersales.core.config import Config
from aftersales.core.errors import ConfigError, DataError


class PlanRequest(Config):
    """What is known, and what is asked.

    With an effect (``difference`` or ``lift``) the users are asked for, with ``users`` the effect, with both the power.

    Attributes:
        baseline: share of users in control; or
        mean, deviation: of the metric between users; or
        pilot, metric, cuped, user_column: a table to take them from, of a time as long as the experiment's, the metric
            in it (see ``metrics.parse_metrics``), and the column with a figure of the user from before that time.
        correlation: of the metric with such a figure, where no pilot tells it.
        difference: true difference of treatment and control; or
        lift: the same as a share of control.
        users: over all variants.
        power: chance that a true effect is found.
        alpha: chance of any false alarm.
        share: of each variant, control first.
        metrics: how many metrics will be read together.
        users_per_day: new users a day, for the length.
    """

    baseline: float | None = Field(default=None, gt=0, lt=1)
    mean: float | None = Field(default=None, allow_inf_nan=False)
    deviation: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    pilot: Path | None = None
    metric: str | None = None
    cuped: str | None = None
    user_column: str = "user_id"
    correlation: float = Field(default=0.0, gt=-1, lt=1)
    difference: float | None = Field(default=None, allow_inf_nan=False)
    lift: float | None = Field(default=None, allow_inf_nan=False)
    users: int | None = Field(default=None, ge=4)
    power: float = Field(default=0.8, ge=0.5, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    share: list[float] = [0.5, 0.5]
    metrics: int = Field(default=1, ge=1)
    users_per_day: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(value is not None for value in (self.baseline, self.deviation, self.pilot)) != 1:
            raise ValueError("give one of baseline, deviation (with mean), or pilot (with metric)")
        if (self.pilot is None) != (self.metric is None) or (self.cuped and self.pilot is None):
            raise ValueError("pilot and metric belong together, and cuped needs both")
        if self.pilot is not None and self.correlation:
            raise ValueError("correlation is measured in the pilot: give cuped instead")
        if self.difference is not None and self.lift is not None:
            raise ValueError("give difference or lift, not both")
        if self.difference is None and self.lift is None and self.users is None:
            raise ValueError("give an effect (difference or lift), users, or both")
        if 0 in (self.difference, self.lift):
            raise ValueError("an effect of 0 cannot be found; give another difference or lift")
        if len(self.share) < 2 or min(self.share) <= 0 or not abs(sum(self.share) - 1) < 1e-6:
            raise ValueError(
                f"the shares must be two or more, above zero, and sum to 1; they sum to {sum(self.share):g}"
            )
        return self


class Plan(BaseModel):
    """The answer.

    Attributes:
        outcome: what is measured of each user.
        baseline: the metric in control; None where only its spread is known.
        deviation: standard deviation between users, before CUPED.
        correlation: with the figure from before; its square is the share of the variance that CUPED takes away.
        difference, lift: the effect that is found with this power.
        alpha_each: level of one comparison (Bonferroni; enough for Holm).
        users: over all variants.
        users_each: of each variant, control first.
        days: until all have come.
    """

    outcome: str
    baseline: float | None
    deviation: float
    correlation: float
    difference: float
    lift: float | None
    power: float
    alpha: float
    alpha_each: float
    users: int
    users_each: list[int]
    days: int | None


def plan(request: PlanRequest) -> Plan:
    """Answer what is asked.

    Raises:
        ConfigError: the effect leads out of 0 to 1, a lift has no mean to refer to, or no number of users is enough.
        DataError: the pilot is wrong, see ``users.read_users``, or all its users are the same.
    """
    outcome, baseline = _outcome(request)
    design = Design(tuple(request.share), request.metrics, request.alpha)
    difference = _difference(request, baseline)
    if difference is not None and isinstance(outcome, Proportion) and not 0 <= outcome.baseline + difference <= 1:
        raise ConfigError(
            f"a baseline of {outcome.baseline:g} with a difference of {difference:g} is no share of users"
        )
    users = request.users
    if users is None:
        assert difference is not None  # the request sees to it
        users = users_needed(outcome, difference, design, request.power)
    if difference is None:
        difference = detectable(outcome, users, design, request.power)
    each = design.sizes(users)
    if min(each) < 2:
        raise ConfigError(f"users: {users} leave a variant with fewer than two; plan with more")
    return Plan(
        outcome=type(outcome).__name__.lower(),
        baseline=baseline,
        deviation=_deviation(outcome),
        correlation=outcome.correlation,
        difference=difference,
        lift=difference / baseline if baseline else None,
        power=power(outcome, difference, users, design),
        alpha=request.alpha,
        alpha_each=design.alpha_each,
        users=sum(each) if request.users is None else request.users,  # rounded up in each variant
        users_each=list(each),
        days=ceil(users / request.users_per_day) if request.users_per_day else None,
    )


def _deviation(outcome: Proportion | Mean) -> float:
    return outcome.deviation if isinstance(outcome, Mean) else sqrt(outcome.baseline * (1 - outcome.baseline))


def _outcome(request: PlanRequest) -> tuple[Proportion | Mean, float | None]:
    """Return what is measured, and the metric in control where it is known."""
    if request.pilot is not None:
        return _pilot(request, request.pilot)
    if request.baseline is not None:
        return Proportion(request.baseline, request.correlation), request.baseline
    assert request.deviation is not None  # the request sees to it
    return Mean(request.deviation, request.correlation), request.mean


def _pilot(request: PlanRequest, path: Path) -> tuple[Proportion | Mean, float]:
    assert request.metric is not None  # the request sees to it
    cuped = [f"{request.metric}={request.cuped}"] if request.cuped else []
    (metric,) = parse_metrics([request.metric], cuped)
    table = read_users(path, metric.columns, request.user_column, variant_column=None)
    found = samples(metric, table)
    values = found[""]
    if len(values) < 2 or not np.ptp(values):
        raise DataError(f"{path}: metric {metric.name!r} is the same for all {len(values)} users; nothing to plan with")
    kept = 1.0
    if metric.covariate is not None:
        kept = adjusted(found, {"": table.columns[metric.covariate]})[1]
    correlation = sqrt(max(0.0, 1 - kept))
    if kind_of(metric, found) == "proportion":
        return Proportion(float(values.mean()), correlation), float(values.mean())
    return Mean(float(values.std(ddof=1)), correlation), float(values.mean())


def _difference(request: PlanRequest, baseline: float | None) -> float | None:
    if request.lift is None:
        return request.difference
    if not baseline:
        raise ConfigError("lift is a share of the metric in control: give mean too, or difference instead of lift")
    return request.lift * baseline


def text_of(found: Plan) -> str:
    """Return the plan as plain text."""
    control, *treatments = found.users_each
    baseline = "" if found.baseline is None else f"{found.baseline:.5g}, "
    lift = "" if found.lift is None else f" ({found.lift:+.2%})"
    rows = {
        found.outcome: f"{baseline}standard deviation {found.deviation:.5g}",
        "CUPED": f"correlation {found.correlation:.2f}, {1 - found.correlation**2:.0%} of the variance kept",
        "effect": f"{found.difference:+.4g}{lift}",
        "power": f"{found.power:.1%}",
        "level": f"{found.alpha_each:.3g} for each comparison, {found.alpha:g} for all together",
        "users": f"{found.users:,}: control {control:,}, " + ", ".join(f"treatment {size:,}" for size in treatments),
        "days": f"{found.days:,}; run whole weeks, and read once at the end" if found.days else "",
    }
    if not found.correlation:
        del rows["CUPED"]
    return "\n".join(f"{name:<12} {value}" for name, value in rows.items() if value)
