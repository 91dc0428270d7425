"""Interactions: reading and its errors, the split by time, and the synthetic year."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.catalogue import load_catalogue
from aftersales.corpora.histories import Histories
from aftersales.corpora.interaction_tables import Columns, read_interactions
from aftersales.corpora.interactions import Event, Interactions, Item, leave_one_out
from aftersales.corpora.synthetic_interactions import DAY, DAYS, START, generate
from aftersales.corpora.time_split import global_time_split

T = 1_735_689_600
ITEMS = [Item(name, title=name) for name in "abcde"]


@pytest.fixture(scope="module")
def year() -> Interactions:
    return generate(seed=1, users=300)


def written(folder: Path, text: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_histories_are_padded_on_the_left_and_cut_to_the_last_items() -> None:
    histories = Histories.of([[1, 2, 3], [], [4]])
    assert histories.padded().tolist() == [[1, 2, 3], [0, 0, 0], [0, 0, 4]]
    assert histories.padded(2).tolist() == [[2, 3], [0, 0], [0, 4]]
    assert histories.select(1, 3).padded().tolist() == [[0], [4]]
    assert histories.take(np.array([2, 0, 1, 0])).padded().tolist() == [[0, 0, 4], [1, 2, 3], [0, 0, 0], [1, 2, 3]]
    assert histories.take(np.array([2, 0])).users == ["2", "0"]
    assert Histories.of([[]]).padded().tolist() == [[0]]


def test_the_last_two_purchases_are_held_out_and_nothing_after_them_is_trained_on() -> None:
    events = [
        Event("u", "c", "buy", T + 3),
        Event("u", "a", "buy", T + 1),
        Event("u", "e", "service", T + 2),
        Event("u", "b", "service", T + 4),
        Event("u", "d", "buy", T + 5),
        Event("u", "a", "service", T + 6),
        Event("short", "a", "buy", T),
        Event("short", "b", "buy", T + 9),
    ]
    split = leave_one_out(Interactions.of(ITEMS, events))
    assert split.validation.histories.users == ["u"]
    assert split.validation.histories.padded().tolist() == [[1, 5]] and split.validation.targets.tolist() == [3]
    assert split.test.histories.padded().tolist() == [[1, 5, 3, 2]] and split.test.targets.tolist() == [4]
    assert split.train.events["item_id"].tolist() == ["a", "b", "a", "e"]


def test_events_of_equal_time_keep_their_order() -> None:
    events = [Event("u", name, "buy", T) for name in "dbeca"]
    split = leave_one_out(Interactions.of(ITEMS, events))
    assert split.train.events["item_id"].tolist() == ["d", "b", "e"]
    assert (split.validation.targets.tolist(), split.test.targets.tolist()) == ([3], [1])


def test_a_split_without_long_histories_is_refused() -> None:
    with pytest.raises(DataError, match="longer histories"):
        leave_one_out(Interactions.of(ITEMS, [Event("u", "a", "buy", T)]))


def test_the_split_by_time_is_one_moment_for_all() -> None:
    day = 86_400
    events = [
        Event("u", "a", "buy", T),
        Event("u", "b", "service", T + 1 * day),
        Event("u", "c", "buy", T + 4 * day),
        Event("u", "a", "buy", T + 5 * day),
        Event("u", "c", "buy", T + 5 * day + 1),
        Event("u", "d", "buy", T + 8 * day),
        Event("new", "e", "buy", T + 9 * day),
        Event("gone", "e", "buy", T + 2 * day),
        Event("gone", "b", "service", T + 6 * day),
    ]
    split = global_time_split(Interactions.of(ITEMS, events), validation_days=3, test_days=3)
    assert split.train.events["user_id"].tolist() == ["gone", "u", "u"]
    assert split.validation.histories.users == ["u"] and split.validation.histories.items.tolist() == [1, 2]
    assert split.validation.targets.tolist() == [3, 1] and split.validation.rows.tolist() == [0, 0]
    assert split.test.histories.users == ["new", "u"] and split.test.histories.lengths.tolist() == [0, 5]
    assert split.test.histories.items.tolist() == [1, 2, 3, 1, 3]
    assert split.test.targets.tolist() == [5, 4] and split.test.rows.tolist() == [0, 1]


def test_a_split_by_time_needs_times_and_days() -> None:
    data = Interactions.of(ITEMS, [Event("u", "a", "buy", T), Event("u", "b", "view", T + 10 * 86_400)])
    with pytest.raises(DataError, match=r"before the last 12 days; hold out fewer of the 10 days"):
        global_time_split(data, validation_days=6, test_days=6)
    with pytest.raises(DataError, match="no 'buy' event lies in one of the parts"):
        global_time_split(data, validation_days=2, test_days=2)
    untimed = Interactions.of_tables(data.items, data.events, timed=False)
    with pytest.raises(DataError, match="no times, which a split by time needs; use leave_one_out"):
        global_time_split(untimed.only(["buy"]), validation_days=1, test_days=1)


@pytest.mark.parametrize("table_format", ["csv", "jsonl", "parquet"])
def test_every_format_is_read(tmp_path: Path, year: Interactions, table_format: str) -> None:
    write = {
        "csv": lambda table, path: table.to_csv(path, index=False),
        "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
        "parquet": lambda table, path: table.to_parquet(path, index=False),
    }[table_format]
    events, items = (tmp_path / f"{name}.{table_format}" for name in ("events", "items"))
    write(year.events, events)
    write(year.items, items)
    again = read_interactions(events, items)
    pd.testing.assert_frame_equal(again.events, year.events)
    assert again.fingerprint == year.fingerprint


def test_columns_kinds_and_times_of_other_shops_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "谁,什么,何时,做\nu,a,2025-01-01T08:00:00+08:00,购买\nu,b,2025-01-01 00:00:01,购买\n")
    columns = Columns(user="谁", item="什么", time="何时", kind="做", kinds={"购买": "buy"})
    events = read_interactions(path, columns=columns).events
    assert events["timestamp"].tolist() == [T, T + 1] and set(events["kind"]) == {"buy"}
    without_kind = written(tmp_path, f"user_id,item_id,timestamp\nu,a,{T}\n", "plain.csv")
    assert read_interactions(without_kind, columns=Columns(kind=None)).events["kind"].tolist() == ["buy"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"user,item_id,kind,timestamp\nu,a,buy,{T}\n", "no column 'user_id'; did you mean 'user'"),
        (f"user_id,item_id,kind,timestamp\nu,a,bye,{T}\n", "unknown event kind 'bye'; did you mean"),
        (f"user_id,item_id,kind,timestamp\nu,a,buy,{T}\n ,a,buy,{T}\n", "line 3: column 'user_id' is empty"),
        ("user_id,item_id,kind,timestamp\nu,a,buy,yesterday\n", "line 2: column 'timestamp': 'yesterday'"),
        (f"user_id,item_id,kind,timestamp\nu,a,buy,{T}000\n", "milliseconds"),
        ("user_id,item_id,kind,timestamp\nu,a,buy,nan\n", "is not in the years"),
        (f"user_id,item_id,kind,timestamp\nu,z,buy,{T}\n", "line 2: item 'z' is not in"),
    ],
)
def test_bad_events_are_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    catalogue = written(tmp_path, "item_id\na\n", "items.csv")
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=r"events\.csv") as error:
        read_interactions(path, catalogue)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("item_id\na\na\n", "line 3: item 'a' is listed before"), ("item_id,price\na,cheap\n", "line 2: column 'price'")],
)
def test_bad_catalogues_are_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    events = written(tmp_path, f"user_id,item_id,kind,timestamp\nu,a,buy,{T}\n")
    with pytest.raises(DataError, match=said):
        read_interactions(events, written(tmp_path, text, "items.csv"))


def test_a_catalogue_that_names_an_unknown_type_is_refused(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "data" / "interactions" / "catalogue.yaml"
    wrong = written(tmp_path, shipped.read_text(encoding="utf-8").replace("{type: 钢化膜,", "{type: 钢化摸,"), "c.yaml")
    with pytest.raises(ConfigError, match="unknown type '钢化摸'; did you mean '钢化膜'"):
        load_catalogue(wrong)


def test_the_generator_is_deterministic_and_users_do_not_depend_on_each_other(year: Interactions) -> None:
    assert generate(seed=1, users=300).fingerprint == year.fingerprint
    assert generate(seed=2, users=300).fingerprint != year.fingerprint
    few = generate(seed=1, users=20).events
    pd.testing.assert_frame_equal(few, year.events[year.events["user_id"] <= "U00020"])


def test_the_generated_year_has_the_promised_extent(year: Interactions) -> None:
    products = year.items[year.items["kind"] == "product"]
    assert len(products) >= 1500 and products["category"].nunique() == 20
    assert (year.items["kind"] == "service").sum() >= 10
    assert products["title"].is_unique and products["title"].str.contains("[\u4e00-\u9fff]").all()
    assert set(year.events["kind"]) == {"view", "cart", "buy", "review", "complain", "return", "service"}
    assert year.n_users == 300
    times = year.events["timestamp"]
    assert times.min() >= START - 3 * DAY and times.max() < START + DAYS * DAY
    assert times.max() > START + (DAYS - 10) * DAY


def test_the_generated_year_has_structure_to_learn(year: Interactions) -> None:
    table = year.events.merge(year.items[["item_id", "product_type", "brand", "title"]], on="item_id")
    bought = table[table["kind"] == "buy"]
    phones, cases = (bought[bought["product_type"] == name] for name in ("手机", "手机壳"))
    pairs = phones.merge(cases, on="user_id", suffixes=("", "_case"))
    soon = pairs[(pairs["timestamp_case"] - pairs["timestamp"]).between(0, 6 * DAY)]
    fits = np.mean([brand in title for brand, title in zip(soon["brand"], soon["title_case"], strict=True)])
    assert len(soon) > 0.4 * len(phones) and fits > 0.9
    diapers = bought[bought["product_type"] == "纸尿裤"].sort_values(["user_id", "timestamp"])
    gaps = diapers.groupby("user_id")["timestamp"].diff().dropna() / DAY
    assert 17 <= gaps.median() <= 25
    exchanged = bought[bought["detail"] == "exchange"]
    assert set(exchanged["user_id"]) <= set(table.loc[table["item_id"] == "S-exchange", "user_id"])
