"""Commands on the histories of users that the service reads: histories build."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.group()
def histories() -> None:
    """Keep what users did, so that the service recommends by user id.

    \b
    Example:
      aftersales histories build events.csv outputs/histories.sqlite
    """


@histories.command()
@click.argument("events", type=PATH)
@click.argument("target", type=PATH, metavar="OUT.sqlite")
@click.option("--user-column", default="user_id", show_default=True, help="Column of the user id.")
@click.option("--item-column", default="item_id", show_default=True, help="Column of the item id.")
@click.option("--time-column", default="timestamp", show_default=True, help="Column of the time, seconds or ISO 8601.")
@click.option("--kind-column", default="kind", show_default=True, help="Column of what was done.")
@click.option("--all-buy", is_flag=True, help="Every event is a purchase; there is no column of kinds.")
@click.option("--kind", "kinds", multiple=True, metavar="WRITTEN=KIND", help="What the file calls a kind.")
def build(
    events: Path,
    target: Path,
    user_column: str,
    item_column: str,
    time_column: str,
    kind_column: str,
    all_buy: bool,
    kinds: tuple[str, ...],
) -> None:
    """Write the histories in EVENTS (CSV, TSV, JSON lines or Parquet, any order) to OUT.sqlite.

    The same user, item, kind and time counts once; events later than now are left out. The file is replaced as a whole,
    and a running service reads the new one from its next request on.

    \b
    Examples:
      aftersales histories build events.csv outputs/histories.sqlite
      aftersales histories build orders.parquet outputs/histories.sqlite --time-column paid_at --all-buy
      aftersales histories build log.jsonl outputs/histories.sqlite --kind 退货=return --kind 购买=buy
    """
    import time

    from aftersales.core.errors import ConfigError, nearest
    from aftersales.corpora.history_store import build_histories
    from aftersales.corpora.interaction_tables import Columns
    from aftersales.runtime.events import EVENT_KINDS, EventKind

    named: dict[str, EventKind] = {}
    for written, _, kind in (pair.rpartition("=") for pair in kinds):
        if not written or kind not in EVENT_KINDS:
            raise ConfigError(f"--kind wants WRITTEN=KIND, such as 退货=return{nearest(kind, EVENT_KINDS)}")
        named[written] = kind
    columns = Columns(user_column, item_column, time_column, None if all_buy else kind_column, kinds=named)
    built = build_histories(events, target, columns, time.time())
    for count, what in ((built.duplicates, "duplicates"), (built.future, "events later than now")):
        if count:
            click.echo(f"note: {count:,} {what} left out")
    click.echo(f"{built.events:,} events of {built.users:,} users: {target}")


COMMANDS = (histories,)
