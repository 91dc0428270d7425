"""What must hold before the figures of an A/B test mean anything, and what limits them."""

import numpy as np
from scipy import stats

from aftersales.abtest.metrics import Metric, Samples
from aftersales.abtest.users import UserTable
from aftersales.core.errors import DataError

# Below, the ratio of the samples is no accident: Fabijan et al. 2019, "Diagnosing Sample Ratio Mismatch in Online
# Controlled Experiments".
MISMATCH = 0.0005
# A mean of n skewed values is near enough to normal from n = 355 skewness²: Kohavi, Deng, Longbotham & Xu 2014, "Seven
# Rules of Thumb for Web Site Experimenters", rule 7. The rule knows no symmetric data, hence a least number.
SKEW_RULE, FEWEST = 355, 30
# Expected users of either outcome from which the chi-square test holds: Cochran 1954.
FEWEST_EXPECTED = 5
# p-value of a covariate's own difference between variants below which it cannot be from before the experiment.
COVARIATE_MOVED = 0.001
FIXED_HORIZON = (
    "these are figures of a fixed horizon: they hold when read once, at the number of users planned before the start. "
    "They do not allow looking every day and stopping at the first p < 0.05 (five looks make 5 % false alarms 14 %, "
    "Armitage, McPherson & Rowe 1969), nor running on until it is reached"
)


def sample_ratio(users: dict[str, int], expected: dict[str, float]) -> float:
    """Return the chi-square p-value (Pearson 1900) of the numbers of users, if each variant gets its share.

    Args:
        users: variant -> number of users.
        expected: variant -> share; sums to 1.

    Raises:
        DataError: a variant with share 0 has users.
    """
    for name, share in expected.items():
        if not share and users[name]:
            raise DataError(f"variant {name!r} has the share 0 and {users[name]:,} users; correct the shares")
    shown = [name for name, share in expected.items() if share]
    scale = sum(users.values()) / sum(expected.values())
    return float(stats.chisquare([users[name] for name in shown], [scale * expected[name] for name in shown]).pvalue)


def mismatch(users: dict[str, int], expected: dict[str, float], p: float) -> str:
    """Say why nothing can be concluded when ``sample_ratio`` finds ``p`` below ``MISMATCH``."""
    total = sum(users.values())
    found = ", ".join(f"{name} {n / total:.2%} instead of {expected[name]:.2%}" for name, n in users.items())
    return (
        f"sample ratio mismatch: {found} (p = {p:.1g}, limit {MISMATCH:g}). Some users were lost or added on one side, "
        "so the variants hold different people and no difference can be ascribed to the treatment. Look for the cause "
        "(assignment, redirects, logging, filters, a share changed on the way); --despite-mismatch reads all the same"
    )


def user_warnings(table: UserTable, planned: int | None, shares_known: bool) -> list[str]:
    """Say who was left out, and whether the experiment has the users that were planned for all its variants."""
    found = []
    if table.crossed:
        found.append(f"{table.crossed:,} users were seen in two variants and are left out; look for the cause")
    if table.unassigned:
        found.append(f"{table.unassigned:,} rows without a variant are left out; right only for users outside the test")
    if not shares_known:
        found.append("no shares were given: the ratio of the samples was checked against equal ones")
    total = sum(map(len, table.variants.values()))
    if planned is None:
        found.append("no --planned-users: whether the experiment has run its course is not known here")
    elif total < planned:
        found.append(f"{total:,} of {planned:,} planned users: this is a look on the way, not a result")
    return found


def covariate_warnings(metric: Metric, covariate: Samples, control: str) -> list[str]:
    """Say which users have no figure from before, and whether the treatment has moved what should lie before it."""
    assert metric.covariate is not None
    found = []
    missing = sum(int(np.isnan(values).sum()) for values in covariate.values())
    if missing:
        found.append(f"metric {metric.name!r}: {missing:,} users have no {metric.covariate.name!r} from before")
    known = {name: values[~np.isnan(values)] for name, values in covariate.items()}
    for name, values in known.items():
        if name != control and min(len(values), len(known[control])) > 1:
            p = stats.ttest_ind(values, known[control], equal_var=False).pvalue
            if p < COVARIATE_MOVED:
                found.append(
                    f"metric {metric.name!r}: {metric.covariate.name!r} differs between {name!r} and {control!r} "
                    f"(p = {p:.1g}); a figure from before the experiment cannot: CUPED hides a part of the effect"
                )
    return found


def sample_warnings(metric: str, found: Samples, proportions: bool) -> list[str]:
    """Say where too few users make the p-values and intervals doubtful."""
    if proportions:
        rate = np.concatenate(list(found.values())).mean()
        few = [name for name, values in found.items() if len(values) * min(rate, 1 - rate) < FEWEST_EXPECTED]
        return [f"metric {metric!r}: too few users of one outcome in {', '.join(few)}"] if few else []
    warnings = []
    for name, values in found.items():
        skew = float(stats.skew(values)) if np.ptp(values) else 0.0
        needed = max(FEWEST, int(SKEW_RULE * skew**2))
        if len(values) < needed:
            warnings.append(
                f"metric {metric!r}: {len(values):,} users in {name!r} with a skewness of {skew:.1f}; from about "
                f"{needed:,} on the interval can be trusted. Cap the largest values, or wait for more users"
            )
    return warnings
