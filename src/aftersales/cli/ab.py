"""Commands on A/B tests: ab assign, plan, read, offpolicy."""

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
USER_COLUMN = click.option("--user-column", default="user_id", show_default=True, help="Column of the user id.")
METRIC_HELP = "COLUMN (sum a user), COLUMN:any (share of users) or COLUMN/COLUMN (ratio)"


@click.group()
def ab() -> None:
    """Assign users to variants, plan and read A/B tests, and estimate from logs.

    \b
    Examples:
      aftersales ab assign configs/ab/recommendations.yaml U000001
      aftersales ab plan --baseline 0.05 --lift 0.1
      aftersales ab read events.csv --metric returned:any --control today
      aftersales ab offpolicy shown.csv
    """


@ab.command()
@click.argument("config", type=PATH)
@click.argument("users", nargs=-1, metavar="[USER]...")
@click.option("--name", help="Which experiment of the file, if there are several.")
@click.option("--file", "source", type=PATH, help="CSV, TSV, JSON lines or Parquet file of users.")
@click.option("--out", "target", type=PATH, help="File for the users with their variant; its ending says the format.")
@USER_COLUMN
def assign(
    config: Path, users: tuple[str, ...], name: str | None, source: Path | None, target: Path | None, user_column: str
) -> None:
    """Say which variant each USER gets, as the service would; the same answer for ever.

    \b
    Examples:
      aftersales ab assign configs/ab/recommendations.yaml U000001 U000002
      aftersales ab assign configs/ab/recommendations.yaml --file users.csv --out assigned.csv
    """
    from aftersales.core.config import load
    from aftersales.core.errors import ConfigError
    from aftersales.runtime.assignment import Assigner, Experiments

    if bool(users) == bool(source) or bool(source) != bool(target):
        raise ConfigError("give either USERs, or --file with --out")
    experiment = load(Experiments, config).experiment(name)
    if source is None or target is None:
        assigner = Assigner(experiment)
        for user in users:
            click.echo(f"{user}\t{assigner.variant(user) or '-'}")
        return
    from aftersales.abtest.assign import assign_file

    for variant, rows in sorted(assign_file(source, target, experiment, user_column).items()):
        click.echo(f"{variant or '(not in the experiment)':<24} {rows:>10,}")
    click.echo(f"written: {target}")


@ab.command()
@click.option("--baseline", type=float, help="Share of users in control, for a metric of yes or no.")
@click.option("--mean", type=float, help="Mean of the metric in control; needed for --lift.")
@click.option("--deviation", type=float, help="Standard deviation of the metric between users.")
@click.option("--pilot", type=PATH, help="Table of events to take these from, as long in time as the test will be.")
@click.option("--metric", help=f"Metric of --pilot: {METRIC_HELP}.")
@click.option("--cuped", help="Column of --pilot with a figure of the user from before.")
@USER_COLUMN
@click.option("--correlation", type=float, help="Of the metric with a figure from before the test, for CUPED.")
@click.option("--difference", type=float, help="Effect to find, treatment minus control.")
@click.option("--lift", type=float, help="Effect to find as a share of control: 0.1 is +10 %.")
@click.option("--users", type=int, help="Users over all variants; without an effect: which effect can be found.")
@click.option("--power", type=float, help="Chance that a true effect is found.  [default: 0.8]")
@click.option("--alpha", type=float, help="Chance of any false alarm.  [default: 0.05]")
@click.option("--share", type=float, multiple=True, help="Share of each variant, control first.  [default: halves]")
@click.option("--metrics", type=int, help="How many metrics will be read together.  [default: 1]")
@click.option("--users-per-day", type=int, help="Users that come new into the test each day.")
@AS_JSON
def plan(as_json: bool, **options: Any) -> None:
    """Say how many users a test needs, which effect it can detect, or with which power.

    \b
    Examples:
      aftersales ab plan --baseline 0.05 --lift 0.1 --users-per-day 3000
      aftersales ab plan --baseline 0.05 --users 20000
      aftersales ab plan --mean 120 --deviation 80 --lift 0.03 --correlation 0.6 --share 0.5 --share 0.25 --share 0.25
      aftersales ab plan --pilot last_month.csv --metric spend --cuped spend_before --lift 0.03
    """
    from aftersales.abtest.plan import PlanRequest, text_of
    from aftersales.abtest.plan import plan as answer
    from aftersales.core.config import build

    found = answer(build(PlanRequest, given(options), "ab plan"))
    click.echo(found.model_dump_json(indent=2) if as_json else text_of(found))


@ab.command()
@click.argument("data", type=PATH)
@click.option("--metric", multiple=True, help=f"{METRIC_HELP}; may be given several times.")
@click.option("--cuped", multiple=True, help="METRIC=COLUMN, a figure of the user from before the test.")
@click.option("--config", type=PATH, help="File of the experiment, which names control and shares.")
@click.option("--name", help="Which experiment of the file, if there are several.")
@click.option("--control", help="Control variant, where no --config names it.")
@click.option("--share", multiple=True, help="VARIANT=SHARE, where no --config says it.  [default: equal shares]")
@USER_COLUMN
@click.option("--variant-column", default="variant", show_default=True, help="Column of the variant.")
@click.option("--planned-users", type=int, help="Users that the plan asked for, over all variants.")
@click.option("--alpha", type=float, help="Chance of any false alarm.  [default: 0.05]")
@click.option("--despite-mismatch", is_flag=True, help="Read although the ratio of the samples is wrong.")
@AS_JSON
def read(as_json: bool, **options: Any) -> None:
    """Compare the variants in DATA, a table with one or more rows a user.

    Differences and lifts come with 95 % intervals, p-values are corrected by Holm. A sample ratio that cannot be chance
    is refused with exit code 2.

    \b
    Examples:
      aftersales ab read events.csv --config configs/ab/recommendations.yaml --metric returned:any --metric spend
      aftersales ab read events.parquet --control today --metric clicks/views --planned-users 62468
      aftersales ab read users.jsonl --control a --share a=0.9 --share b=0.1 --metric spend --cuped spend=before
    """
    from aftersales.abtest.reading import ReadRequest
    from aftersales.abtest.reading import read as answer
    from aftersales.abtest.report import text_of
    from aftersales.core.config import build
    from aftersales.core.errors import DataError

    report = answer(build(ReadRequest, given(options), "ab read"))
    click.echo(report.model_dump_json(indent=2) if as_json else text_of(report))
    if report.withheld is not None:
        raise DataError(report.withheld)


@ab.command()
@click.argument("log", type=PATH)
@USER_COLUMN
@click.option("--propensity-column", help="Chance with which the item was shown.  [default: propensity]")
@click.option("--target-column", help="Chance of it under the new policy.  [default: target_propensity]")
@click.option("--reward-column", help="What came of it.  [default: reward]")
@click.option("--clip", type=float, help="Largest weight of the clipped estimate.  [default: root of the rows]")
@click.option("--seed", type=int, help="Of the bootstrap.  [default: 0]")
@click.option("--resamples", type=int, help="Of the bootstrap.  [default: 1000]")
@AS_JSON
def offpolicy(as_json: bool, **options: Any) -> None:
    """Estimate from LOG, one row an item shown, what another policy would have earned (IPS, SNIPS, clipped IPS).

    \b
    Examples:
      aftersales ab offpolicy shown.csv
      aftersales ab offpolicy shown.parquet --reward-column clicked --target-column new_policy --clip 20 --json
    """
    from aftersales.abtest.offpolicy import OffPolicyRequest, estimate, text_of
    from aftersales.core.config import build

    report = estimate(build(OffPolicyRequest, given(options), "ab offpolicy"))
    click.echo(report.model_dump_json(indent=2) if as_json else text_of(report))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; the others have the defaults of the request."""
    return {name: value for name, value in options.items() if value is not None and value != ()}


COMMANDS = (ab,)
