"""From figures of users to samples: one value a user, whose mean is the metric and whose spread is its variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aftersales.abtest.users import Column, UserTable
from aftersales.core.errors import ConfigError, DataError, nearest

Samples = dict[str, NDArray[np.float64]]  # variant -> one value a user


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Attributes:
        name: as written, see ``parse``.
        numerator: added up for each user.
        denominator: of a ratio of two sums, such as clicks over views.
        covariate: a figure of the user from before the experiment, for CUPED.
    """

    name: str
    numerator: Column
    denominator: Column | None = None
    covariate: Column | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns it needs."""
        return tuple(column for column in (self.numerator, self.denominator, self.covariate) if column)


def parse_metrics(written: Sequence[str], cuped: Sequence[str] = ()) -> list[Metric]:
    """Read metrics: ``spend`` (sum a user), ``returned:any`` (share of users) or ``clicks/views`` (ratio of sums).

    Args:
        written: one text a metric.
        cuped: ``METRIC=COLUMN``, the column with a figure of the user from before the experiment.

    Raises:
        ConfigError: a metric is not of these forms or named twice, or ``cuped`` names none of them.
    """
    covariates = dict(split_pair(pair, "--cuped", "METRIC=COLUMN") for pair in cuped)
    for name in covariates:
        if name not in written:
            raise ConfigError(f"--cuped {name}=…: there is no --metric {name!r}{nearest(name, written)}")
    if len(set(written)) < len(written):
        raise ConfigError("a metric is given twice; name each --metric once")
    return [_parse(name, covariates.get(name)) for name in written]


def split_pair(text: str, option: str, form: str) -> tuple[str, str]:
    """Split ``left=right``.

    Raises:
        ConfigError: a side is empty.
    """
    left, _, right = text.partition("=")
    if not (left and right):
        raise ConfigError(f"{option} {text!r} is not of the form {form}")
    return left, right


def _parse(name: str, covariate: str | None) -> Metric:
    numerator, slash, denominator = name.partition("/")
    column, colon, how = numerator.partition(":")
    if not column or (slash and (not denominator or colon)) or (colon and how not in ("sum", "any")):
        raise ConfigError(f"--metric {name!r} is not of the form COLUMN, COLUMN:any or COLUMN/COLUMN")
    return Metric(
        name,
        Column(column, "any" if how == "any" else "sum"),
        Column(denominator) if slash else None,
        Column(covariate, "once") if covariate else None,
    )


def samples(metric: Metric, table: UserTable) -> Samples:
    """Return for each variant one value a user, whose mean is the metric.

    A ratio is linearised around its own value, which gives its mean the variance of the delta method (Deng, Knoblich &
    Lu 2018, "Applying the Delta Method in Metric Analytics", section 4).

    Raises:
        DataError: the denominators of a variant do not add up to something above zero.
    """
    above = {name: table.columns[metric.numerator][rows] for name, rows in table.variants.items()}
    if metric.denominator is None:
        return above
    below = {name: table.columns[metric.denominator][rows] for name, rows in table.variants.items()}
    for name, values in below.items():
        if values.sum() <= 0:
            raise DataError(
                f"metric {metric.name!r}: column {metric.denominator.name!r} adds up to {values.sum():g} in variant "
                f"{name!r}; a ratio needs a denominator above zero"
            )
    return {name: _linearised(above[name], below[name]) for name in above}


def _linearised(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = above.sum() / below.sum()
    return np.asarray(ratio + (above - ratio * below) / below.mean())


def kind_of(metric: Metric, found: Samples) -> Literal["proportion", "mean", "ratio"]:
    """Return ``proportion`` when every user has 0 or 1, else whether the metric is a mean or a ratio."""
    if metric.denominator is not None:
        return "ratio"
    return "proportion" if all(np.isin(values, (0, 1)).all() for values in found.values()) else "mean"


def adjusted(found: Samples, covariate: Mapping[str, NDArray[np.float64]]) -> tuple[Samples, float]:
    """Take out of each user's value what a figure from before the experiment foretold (CUPED).

    Deng, Xu, Kohavi & Walker 2013, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data", section 3.2, with one slope for all variants; section 4.2 for users without a figure from
    before, who get the mean and a column of their own.

    Args:
        found: values of the users of each variant.
        covariate: variant -> figures from before, NaN where there is none; same shapes.

    Returns:
        The adjusted values, and the share of the variance within variants that remains.

    Raises:
        DataError: no user has a figure from before, or all have the same.
    """
    everybody = np.concatenate([covariate[name] for name in found])
    if np.isnan(everybody).all() or not (np.nanstd(everybody) > 0 or np.isnan(everybody).any()):
        raise DataError("the column for --cuped says nothing: every user has the same figure or none; leave it out")
    mean = np.nanmean(everybody)
    features = {name: _features(covariate[name], float(mean)) for name in found}
    centre = np.concatenate([features[name] for name in found]).mean(axis=0)
    inside = np.concatenate([features[name] - features[name].mean(axis=0) for name in found])
    values = np.concatenate([found[name] - found[name].mean() for name in found])
    slopes = np.linalg.lstsq(inside, values, rcond=None)[0]
    kept = values - inside @ slopes
    remaining = float((kept @ kept) / (values @ values)) if values.any() else 1.0
    return {name: found[name] - (features[name] - centre) @ slopes for name in found}, remaining


def _features(covariate: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Return shape (users, 2): the figure from before, and whether there is none."""
    missing = np.isnan(covariate)
    return np.column_stack([np.where(missing, mean, covariate), missing.astype(np.float64)])
