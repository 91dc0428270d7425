"""Read the result of an A/B test: was it assigned as planned, what changed, how sure is that."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from aftersales.abtest.checks import (
    FIXED_HORIZON,
    MISMATCH,
    covariate_warnings,
    mismatch,
    sample_ratio,
    sample_warnings,
    user_warnings,
)
from aftersales.abtest.compare import Effect, compare_means, compare_proportions, holm
from aftersales.abtest.metrics import Metric, adjusted, kind_of, parse_metrics, samples, split_pair
from aftersales.abtest.report import Comparison, Kind, Report, Verdict
from aftersales.abtest.users import UserTable, read_users
from aftersales.core.config import Config, load
from aftersales.core.errors import ConfigError, DataError, nearest
from aftersales.runtime.assignment import Experiments


class ReadRequest(Config):
    """What to read, and how.

    Attributes:
        data: table with one or more rows a user.
        metric: metrics, see ``metrics.parse_metrics``.
        cuped: ``METRIC=COLUMN``, a figure of each user from before the experiment.
        config: file of experiments, which names control and shares; else ``control`` and ``share`` do.
        name: which experiment of the file.
        control: the variant that the others are compared with.
        share: ``VARIANT=SHARE`` for every variant; equal shares when empty.
        user_column, variant_column: names of columns.
        planned_users: users that the plan asked for, over all variants.
        alpha: verdicts need a corrected p-value below.
        despite_mismatch: read although the ratio of the samples is wrong.
    """

    data: Path
    metric: list[str] = Field(min_length=1)
    cuped: list[str] = []
    config: Path | None = None
    name: str | None = None
    control: str | None = None
    share: list[str] = []
    user_column: str = "user_id"
    variant_column: str = "variant"
    planned_users: int | None = Field(default=None, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    despite_mismatch: bool = False


def read(request: ReadRequest) -> Report:
    """Read an experiment.

    Raises:
        ConfigError: an option is wrong.
        DataError: the table is wrong, see ``users.read_users``; only one variant has users; or a metric cannot be
            compared.
    """
    metrics = parse_metrics(request.metric, request.cuped)
    control, shares = _design(request)
    columns = list(dict.fromkeys(column for metric in metrics for column in metric.columns))
    table = read_users(request.data, columns, request.user_column, request.variant_column, tuple(shares))
    _check_variants(control, table, request.data)
    expected = shares or dict.fromkeys(table.variants, 1 / len(table.variants))
    users = {name: len(table.variants.get(name, ())) for name in sorted(expected, key=lambda name: name != control)}
    ratio_p = sample_ratio(users, expected)
    warnings = user_warnings(table, request.planned_users, bool(shares))
    withheld = mismatch(users, expected, ratio_p) if ratio_p < MISMATCH else None
    comparisons = []
    if withheld is None or request.despite_mismatch:
        measured = [_measure(metric, table, control) for metric in metrics]
        warnings += [*([withheld] if withheld else []), *(text for _, texts in measured for text in texts)]
        early = request.planned_users is not None and sum(users.values()) < request.planned_users
        comparisons = _judged([one for ones, _ in measured for one in ones], request.alpha, early)
        warnings.append(FIXED_HORIZON)
        withheld = None
    return Report(
        control=control,
        users=users,
        expected=expected,
        ratio_p=ratio_p,
        comparisons=comparisons,
        withheld=withheld,
        warnings=warnings,
    )


def _design(request: ReadRequest) -> tuple[str, dict[str, float]]:
    """Return control and the share of each variant; no share when all are equal."""
    if request.config is not None:
        if request.control or request.share:
            raise ConfigError("--config names control and shares; leave out --control and --share")
        experiment = load(Experiments, request.config).experiment(request.name)
        return experiment.control, experiment.weights
    if request.control is None:
        raise ConfigError("name the control variant: --control NAME, or --config with the file of the experiment")
    shares = {}
    for text in request.share:
        name, share = split_pair(text, "--share", "VARIANT=SHARE")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ConfigError(f"--share {text!r}: {share!r} is no number; write {name}=0.5") from None
    if shares and (min(shares.values()) < 0 or not abs(sum(shares.values()) - 1) < 1e-6):
        raise ConfigError(f"the shares must be zero or more and sum to 1; they sum to {sum(shares.values()):g}")
    return request.control, shares


def _check_variants(control: str, table: UserTable, path: Path) -> None:
    if control not in table.variants:
        raise DataError(f"{path}: no user has the control variant {control!r}{nearest(control, table.variants)}")
    if len(table.variants) < 2:
        raise DataError(f"{path}: only the variant {control!r} has users; a comparison needs two")


@dataclass(frozen=True)
class _Measured:
    metric: str
    variant: str
    kind: Kind
    effect: Effect
    variance_kept: float | None


def _measure(metric: Metric, table: UserTable, control: str) -> tuple[list[_Measured], list[str]]:
    """Return the effect of every treatment on one metric, and what limits it."""
    warnings, kept = [], None
    try:
        found = samples(metric, table)
        kind = kind_of(metric, found)
        if metric.covariate is not None:
            covariate = {name: table.columns[metric.covariate][rows] for name, rows in table.variants.items()}
            warnings += covariate_warnings(metric, covariate, control)
            found, kept = adjusted(found, covariate)
            warnings.append(f"metric {metric.name!r}: CUPED leaves {kept:.0%} of the variance")
        plain = kind == "proportion" and kept is None  # CUPED leaves no proportion
        warnings += sample_warnings(metric.name, found, plain)
        compare = compare_proportions if plain else compare_means
        effects = {name: compare(found[control], values) for name, values in found.items() if name != control}
    except DataError as error:
        raise DataError(f"metric {metric.name!r}: {error}") from None
    return [_Measured(metric.name, name, kind, effect, kept) for name, effect in effects.items()], warnings


def _judged(measured: list[_Measured], alpha: float, early: bool) -> list[Comparison]:
    corrected = holm([one.effect.p for one in measured])
    return [
        Comparison(
            metric=one.metric,
            variant=one.variant,
            kind=one.kind,
            **vars(one.effect),
            p_corrected=p,
            verdict="too early" if early else _verdict(one.effect, p, alpha),
            variance_kept=one.variance_kept,
        )
        for one, p in zip(measured, corrected, strict=True)
    ]


def _verdict(effect: Effect, p: float, alpha: float) -> Verdict:
    if p >= alpha:
        return "no clear difference"
    return "higher" if effect.difference > 0 else "lower"
