"""Histories of users: what a build keeps, and what the service reads of them."""

import json
import sqlite3
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from aftersales.cli.main import cli
from aftersales.core.errors import ConfigError, DataError, ModelError, StorageError
from aftersales.corpora.history_store import Built, build_histories
from aftersales.corpora.interaction_tables import Columns
from aftersales.runtime.events import DAY, PastEvent
from aftersales.runtime.user_histories import UserHistories, joined

NOW = 1_760_000_000
ROWS = [
    {"user_id": "甲", "item_id": "P2", "kind": "buy", "timestamp": NOW - DAY},
    {"user_id": "甲", "item_id": "P1", "kind": "view", "timestamp": NOW - DAY},  # of the same time, written later
    {"user_id": "甲", "item_id": "P9", "kind": "buy", "timestamp": NOW - 3 * DAY},
    {"user_id": "甲", "item_id": "P2", "kind": "buy", "timestamp": NOW - DAY},  # a duplicate
    {"user_id": "甲", "item_id": "P3", "kind": "buy", "timestamp": NOW + 1},  # the future
    {"user_id": "乙", "item_id": "P1", "kind": "return", "timestamp": NOW},
]


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def built(tmp_path: Path) -> UserHistories:
    build_histories(table(tmp_path / "events.jsonl", ROWS), tmp_path / "histories.sqlite", Columns(), NOW)
    return UserHistories.open(tmp_path / "histories.sqlite")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_build_counts_what_it_leaves_out(tmp_path: Path, ending: str) -> None:
    source = table(tmp_path / f"events{ending}", ROWS)
    assert build_histories(source, tmp_path / "h.sqlite", Columns(), NOW) == Built(4, 2, duplicates=1, future=1)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "h.sqlite"}


def test_events_come_oldest_first_and_equal_times_as_written(built: UserHistories) -> None:
    events = [PastEvent("P9", "buy", 3.0), PastEvent("P2", "buy", 1.0), PastEvent("P1", "view", 1.0)]
    assert built.events("甲", NOW, 10) == events
    assert built.events("甲", NOW, 1) == events[1:], "the last of each kind"
    assert built.events("甲", NOW - 2 * DAY, 10) == [PastEvent("P9", "buy", 1.0)], "what is later had not happened"
    assert built.events("甲", 1, 10) == [], "known, with nothing yet"
    assert built.events("丙", NOW, 10) is None
    assert built.events("' OR 1=1 --", NOW, 10) is None


def test_views_do_not_push_out_what_was_bought(tmp_path: Path) -> None:
    views = [{**ROWS[1], "item_id": f"V{number}", "timestamp": NOW - number} for number in range(50)]
    build_histories(table(tmp_path / "events.jsonl", [*ROWS, *views]), tmp_path / "h.sqlite", Columns(), NOW)
    found = UserHistories.open(tmp_path / "h.sqlite")
    assert [(event.item_id, event.kind) for event in found.events("甲", NOW, 3) or []] == [
        ("P9", "buy"),
        ("P2", "buy"),
        ("V2", "view"),
        ("V1", "view"),
        ("V0", "view"),
    ]
    assert sorted(found.bought("甲", NOW)) == ["P2", "P9"] and found.bought("甲", NOW - 2 * DAY) == ["P9"]
    assert found.bought("乙", NOW) == ["P1"], "returned, so it was bought"
    assert found.bought("丙", NOW) == []


def test_a_new_build_is_seen_at_once_and_a_failed_one_leaves_the_old(built: UserHistories, tmp_path: Path) -> None:
    bad = table(tmp_path / "bad.jsonl", [ROWS[0], {**ROWS[1], "kind": "by"}])
    with pytest.raises(DataError, match=r"line 2: column 'kind': .* kind 'by'.*map it with --kind WRITTEN=KIND"):
        build_histories(bad, built.path, Columns(), NOW)
    assert built.events("乙", NOW, 10) == [PastEvent("P1", "return", 0.0)]
    build_histories(table(tmp_path / "new.jsonl", ROWS[:1]), built.path, Columns(), NOW)
    assert built.events("乙", NOW, 10) is None
    assert not list(tmp_path.glob(".histories*"))


@pytest.mark.parametrize("name", ["histories.csv", "events.db"])
def test_a_place_that_is_wrong_is_refused(tmp_path: Path, name: str) -> None:
    source = table(tmp_path / "events.jsonl", ROWS).rename(tmp_path / "events.db")
    with pytest.raises(DataError, match=r"no place for histories; name a file that ends in \.sqlite"):
        build_histories(source, tmp_path / name, Columns(), NOW)


@pytest.mark.parametrize("place", ["events.jsonl/h.sqlite", "events.jsonl/deeper/h.sqlite"])
def test_a_place_below_a_file_is_refused(tmp_path: Path, place: str) -> None:
    source = table(tmp_path / "events.jsonl", ROWS)
    with pytest.raises(StorageError, match=r"h\.sqlite cannot be written .*choose another place"):
        build_histories(source, tmp_path / place, Columns(), NOW)


def test_nothing_but_the_future_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every event is later than now"):
        build_histories(table(tmp_path / "events.csv", ROWS), tmp_path / "h.sqlite", Columns(), 1)
    with pytest.raises(DataError, match="half a character"):
        half = table(tmp_path / "half.jsonl", ROWS[:1])
        half.write_text(json.dumps({**ROWS[0], "user_id": "\ud800"}), encoding="utf-8")
        build_histories(half, tmp_path / "h.sqlite", Columns(), NOW)
    assert not list(tmp_path.glob("*.sqlite"))


def test_what_is_no_file_of_histories_is_refused(tmp_path: Path, built: UserHistories) -> None:
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE events (user_id)").connection.close()
    (tmp_path / "text.sqlite").write_text("user_id,item_id\n" * 100)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(built.path.read_bytes()[:100])
    for path in (other, tmp_path / "text.sqlite", damaged, tmp_path / "none.sqlite", tmp_path):
        with pytest.raises(ModelError, match=f"{path}.*aftersales histories build"):
            UserHistories.open(path)
    assert not (tmp_path / "none.sqlite").exists()


def test_the_store_cannot_be_written_to_by_who_reads_it(built: UserHistories) -> None:
    before = built.path.read_bytes()
    built.events("甲", NOW, 10)
    assert built.path.read_bytes() == before


def test_stored_and_given_events_are_joined_each_once() -> None:
    stored = [PastEvent("P1", "buy", 3.0), PastEvent("S1", "service", 2.0)]
    assert joined(stored, [PastEvent("P2"), PastEvent("P2")]) == [
        *stored,
        PastEvent("P2", None, 0.0),
        PastEvent("P2", None, 0.0),
    ]
    again = [PastEvent("P1", None, 3.0), PastEvent("S1", "service", 2.0), PastEvent("P1", "view", 3.0)]
    assert joined(stored, again) == [*stored, PastEvent("P1", "view", 3.0)]
    assert joined([], [PastEvent("P1"), PastEvent("P1")]) == [PastEvent("P1"), PastEvent("P1")]
    assert joined([], [PastEvent("P1", None, 1.0), PastEvent("P1", "buy", 1.0)]) == [PastEvent("P1", None, 1.0)]
    assert joined(stored, []) == stored


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "sku": "P1", "做": name, "timestamp": "2025-01-01"} for name in ("购买", "购买", "退货")]
    source, target = table(tmp_path / "events.csv", rows), tmp_path / "h.sqlite"
    command = ["histories", "build", str(source), str(target), "--item-column", "sku", "--kind-column", "做"]
    done = CliRunner().invoke(cli, [*command, "--kind", "购买=buy", "--kind", "退货=return"], catch_exceptions=False)
    assert done.output.splitlines() == ["note: 1 duplicates left out", f"2 events of 1 users: {target}"]
    with pytest.raises(ConfigError, match="WRITTEN=KIND"):
        CliRunner().invoke(cli, [*command, "--kind", "购买"], catch_exceptions=False)
    with pytest.raises(DataError, match=r"no column 'sku2'.*--item-column"):
        CliRunner().invoke(cli, [*command[:-3], "sku2"], catch_exceptions=False)
