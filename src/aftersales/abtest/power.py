"""Power, sample size and minimum detectable effect of two-sided tests at a fixed horizon, as ``reading`` makes them."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt
from typing import Protocol

from scipy import optimize, stats

from aftersales.core.errors import ConfigError

MOST_USERS = 10**12
# From these degrees of freedom on, t is normal to six digits, and scipy's noncentral t is not reliable far out.
NORMAL_FROM = 10**5


class Outcome(Protocol):
    """What is measured of each user."""

    @property
    def largest(self) -> float:
        """The largest increase that is possible."""

    def power(self, difference: float, control: int, treatment: int, alpha: float) -> float:
        """Return the chance that a true ``difference`` is found by groups of these sizes at level ``alpha``."""


@dataclass(frozen=True)
class Proportion:
    """A share of users, compared by the pooled test of two proportions.

    Fleiss, Levin & Paik 2003, "Statistical Methods for Rates and Proportions", section 4.2, without the correction for
    continuity.

    Attributes:
        baseline: share in control.
        correlation: with a figure from before the experiment; CUPED takes its square off the variance.
    """

    baseline: float
    correlation: float = 0.0

    @property
    def largest(self) -> float:
        """Up to everybody."""
        return 1 - self.baseline

    def power(self, difference: float, control: int, treatment: int, alpha: float) -> float:
        """See ``Outcome.power``."""
        treated = self.baseline + difference
        pooled = (control * self.baseline + treatment * treated) / (control + treatment)
        kept = sqrt(1 - self.correlation**2)
        null = kept * sqrt(pooled * (1 - pooled) * (1 / control + 1 / treatment))
        true = kept * sqrt(self.baseline * (1 - self.baseline) / control + treated * (1 - treated) / treatment)
        margin = float(stats.norm.isf(alpha / 2)) * null
        if true == 0:
            return float(abs(difference) > margin)
        return float(stats.norm.sf((margin - difference) / true) + stats.norm.cdf((-margin - difference) / true))


@dataclass(frozen=True)
class Mean:
    """A mean of users, compared by a t test (Cohen 1988, "Statistical Power Analysis", chapter 2).

    Attributes:
        deviation: standard deviation between users, as in a pilot.
        correlation: with a figure from before the experiment; CUPED takes its square off the variance (Deng et al.
            2013, section 3.2).
    """

    deviation: float
    correlation: float = 0.0

    @property
    def largest(self) -> float:
        """No bound."""
        return inf

    def power(self, difference: float, control: int, treatment: int, alpha: float) -> float:
        """See ``Outcome.power``."""
        kept = sqrt(1 - self.correlation**2)
        shift = difference / (kept * self.deviation * sqrt(1 / control + 1 / treatment))
        freedom = control + treatment - 2
        if freedom >= NORMAL_FROM:
            margin = float(stats.norm.isf(alpha / 2))
            return float(stats.norm.sf(margin - shift) + stats.norm.cdf(-margin - shift))
        margin = float(stats.t.isf(alpha / 2, freedom))
        return float(stats.nct.sf(margin, freedom, shift) + stats.nct.cdf(-margin, freedom, shift))


@dataclass(frozen=True)
class Design:
    """How users are shared out and how sure a verdict must be.

    Attributes:
        shares: of the users, control first; they sum to 1.
        metrics: how many metrics will be read together.
        alpha: chance of any false alarm among all comparisons.
    """

    shares: tuple[float, ...] = (0.5, 0.5)
    metrics: int = 1
    alpha: float = 0.05

    @property
    def alpha_each(self) -> float:
        """Level of one comparison by Bonferroni. Holm's procedure, which reads the result, rejects whatever this does,
        so a plan by Bonferroni has at least its power.
        """
        return self.alpha / (self.metrics * (len(self.shares) - 1))

    def sizes(self, users: int) -> tuple[int, ...]:
        """Return the users of each variant, control first, rounded up."""
        return tuple(ceil(users * share - 1e-9) for share in self.shares)


def power(outcome: Outcome, difference: float, users: int, design: Design) -> float:
    """Return the chance that a true ``difference`` of one treatment is found, for the smallest of the treatments.

    Args:
        outcome: what is measured.
        difference: true difference of treatment and control.
        users: of all variants together.
        design: how they are shared out.
    """
    control, *treatments = design.sizes(users)
    return outcome.power(difference, control, min(treatments), design.alpha_each)


def users_needed(outcome: Outcome, difference: float, design: Design, wanted: float) -> int:
    """Return how many users, over all variants, find a true ``difference`` with the power ``wanted``.

    ``design.sizes`` rounds them up in each variant.

    Raises:
        ConfigError: no number of users does, up to ``MOST_USERS``.
    """

    def enough(users: int) -> bool:
        return min(design.sizes(users)) >= 2 and power(outcome, difference, users, design) >= wanted

    most = 4
    while not enough(most):
        most *= 2
        if most > MOST_USERS:
            raise ConfigError(f"a difference of {difference:g} needs more than {MOST_USERS:,} users; look for a larger")
    return bisect_left(range(most), True, key=enough)


def detectable(outcome: Outcome, users: int, design: Design, wanted: float) -> float:
    """Return the smallest increase that so many users, over all variants, find with the power ``wanted``.

    Raises:
        ConfigError: there are too few users for any.
    """

    def lacking(difference: float) -> float:
        return power(outcome, difference, users, design) - wanted

    if min(design.sizes(users)) < 2:
        raise ConfigError(f"{users} users leave a variant with fewer than two; plan with more users or fewer variants")
    most = outcome.largest if isfinite(outcome.largest) else _first_reaching(lacking)
    if lacking(most) < 0:
        raise ConfigError(f"{users:,} users find no increase at all with a power of {wanted:.0%}; plan with more users")
    return float(optimize.brentq(lacking, 0.0, most, rtol=1e-10))


def _first_reaching(lacking: Callable[[float], float]) -> float:
    """Return a difference that is large enough, by doubling."""
    difference = 1e-9
    while lacking(difference) < 0:
        difference *= 2
    return difference
