"""Adapters of public sets of interactions, on invented files of their formats, and on the sets where they are."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.histories import Holdout
from aftersales.corpora.public.recommendation import INTERACTIONS, load_public_interactions

RETAIL = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,10001A,RED MUG,6,2011-01-03 08:00:00,2.0,7.0,Norway
1,10001b,BLUE MUG,6,2011-01-03 08:00:00,3.0,7.0,Norway
1,10001b,BLUE MUG,6,2011-01-03 08:00:00,3.0,7.0,Norway
1,POST,POSTAGE,1,2011-01-03 08:00:00,9.0,7.0,Norway
2,10002,LAMP,1,2011-01-04 08:00:00,5.0,,Norway
C3,10001B,BLUE MUG ,-6,2011-01-05 08:00:00,4.0,7.0,Norway
C3,D,Discount,-1,2011-01-05 08:00:00,4.0,7.0,Norway
4,10002,LAMP,-9,2011-01-06 08:00:00,0.0,8.0,Norway
5,10002,LAMP,1,2011-02-01 08:00:00,5.0,8.0,Norway
6,10001A,RED MUG,1,2011-03-10 08:00:00,2.0,7.0,Norway
6,10002,LAMP,1,2011-03-10 08:00:00,7.0,7.0,Norway
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "public"
    write(
        root / "recommendation",
        {
            "ml1m_gsasrec/train/input.txt": "1 2\n2 3 4\n5\n",
            "ml1m_gsasrec/val/input.txt": "2 3 4 1\n",
            "ml1m_gsasrec/val/output.txt": "5\n",
            "ml1m_gsasrec/test/output.txt": "3\n10\n4\n",
            "s3rec_amazon/Beauty.txt": "7 1 2 3 10\n8 2 3 1 2\n",
            "s3rec_amazon/Beauty_item2attributes.json": json.dumps({"1": [5, 6], "2": [5], "3": [], "10": [6]}),
            "gcegnn_Tmall/all_train_seq.jsonl": "".join(
                json.dumps({"session": [n, n + 1, 3], "next": None}) + "\n" for n in range(1, 11)
            ),
            "gcegnn_Tmall/test.jsonl": '{"session": [4, 2], "next": 9}\n{"session": [4], "next": 2}\n',
        },
    )
    (root / "customers/online_retail_uci").mkdir(parents=True)
    (root / "customers/online_retail_uci/online_retail.csv.xz").write_bytes(lzma.compress(RETAIL.encode()))
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(root))
    return root / "recommendation"


def shown(holdout: Holdout) -> list[tuple[str, list[int], int]]:
    rows = [holdout.histories.select(row, row + 1) for row in range(len(holdout.histories))]
    return [(str(r.users[0]), r.items.tolist(), int(t)) for r, t in zip(rows, holdout.targets, strict=True)]


def test_movielens_keeps_the_published_files_apart(sets: Path) -> None:
    data = load_public_interactions("ml1m_gsasrec")
    assert data.interactions.items["item_id"].tolist() == ["1", "2", "3", "4", "5", "10"]
    assert data.split.train.events["item_id"].tolist() == ["1", "2", "2", "3", "4", "5"]
    assert shown(data.split.validation) == [("2", [2, 3, 4, 1], 5)]
    assert shown(data.split.test) == [("1", [1, 2], 3), ("2", [2, 3, 4, 1, 5], 6), ("3", [5], 4)]
    assert len(data.interactions.events) == 11 and data.exclude_history and data.published_train is data.split.train


def test_movielens_of_known_events_leaves_one_out(sets: Path) -> None:
    write(sets, {"ml1m_gsasrec/train/input.txt": "1 2\n2 3 4\n5 4\n"})
    data = load_public_interactions("ml1m_gsasrec/known")
    assert data.split.train.events["item_id"].tolist() == ["1", "2", "5"]
    assert shown(data.split.validation) == [("2", [2], 3)]
    assert shown(data.split.test) == [("1", [1], 2), ("2", [2, 3], 4), ("3", [5], 4)]


def test_amazon_leaves_one_out_and_has_attributes(sets: Path) -> None:
    data = load_public_interactions("s3rec_amazon/Beauty")
    assert data.interactions.items["item_id"].tolist() == ["1", "2", "3", "10"] and not data.interactions.timed
    assert shown(data.split.validation) == [("7", [1, 2], 3), ("8", [2, 3], 1)]
    assert shown(data.split.test) == [("7", [1, 2, 3], 4), ("8", [2, 3, 1], 2)]
    assert data.split.train.events["item_id"].tolist() == ["1", "2", "2", "3"]
    described = data.interactions.items.set_index("item_id")["attributes"].to_dict()
    assert described == {"1": "5|6", "2": "5", "3": "", "10": "6"}


def test_tmall_predicts_after_every_prefix_and_validates_on_the_last_sessions(sets: Path) -> None:
    data = load_public_interactions("gcegnn_Tmall")
    assert [row[1:] for row in shown(data.split.test)] == [([4, 2], 9), ([4], 2)]
    assert [row[1:] for row in shown(data.split.validation)] == [([10], 11), ([10, 11], 3)]
    assert data.split.train.n_users == 9 and data.published_train.n_users == 10 and not data.exclude_history
    assert data.published_train.histories().select(9, 10).items.tolist() == [10, 11, 3]


def test_retail_knows_purchases_returns_and_variants(sets: Path) -> None:
    data = load_public_interactions("online_retail_uci")
    events = data.interactions.events[["user_id", "item_id", "kind", "timestamp"]].to_numpy().tolist()
    day = 86_400
    first = 1_294_041_600  # 2011-01-03 08:00
    assert events == [
        ["7", "10001A", "buy", first],
        ["7", "10001B", "buy", first],
        ["7", "10001B", "return", first + 2 * day],
        ["7", "10001A", "buy", first + 66 * day],
        ["7", "10002", "buy", first + 66 * day],
        ["8", "10002", "buy", first + 29 * day],
    ]
    items = data.interactions.items.set_index("item_id")
    assert items["group"].to_dict() == {"10001A": "10001", "10001B": "10001", "10002": "10002"}
    assert items["title"]["10001B"] == "BLUE MUG" and items["price"].tolist() == [2.0, 3.5, 6.0]
    test = data.split.test
    assert test.histories.users == ["7"] and test.histories.items.tolist() == [1, 2]  # the return is no purchase
    assert test.targets.tolist() == [1, 3] and test.rows.tolist() == [0, 0]
    assert data.split.validation.histories.users == ["8"] and not data.split.validation.histories.items.size


def test_the_fingerprint_is_of_what_is_learned_from_and_held_out(sets: Path) -> None:
    before = load_public_interactions("ml1m_gsasrec").fingerprint
    assert load_public_interactions("ml1m_gsasrec").fingerprint == before
    write(sets, {"ml1m_gsasrec/test/output.txt": "3\n10\n2\n"})
    assert load_public_interactions("ml1m_gsasrec").fingerprint != before


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("ml1m_gsasrec", "val/input.txt", "2 3 1\n", "does not continue rows"),
        ("ml1m_gsasrec", "test/output.txt", "3\n", "has 1 lines and its inputs 3"),
        ("ml1m_gsasrec", "train/input.txt", "1 2\n\n5\n", "line 2: '' is not a sequence"),
        ("s3rec_amazon/Beauty", "Beauty.txt", "7 1 2 x\n", "line 1: '7 1 2 x' is not a sequence"),
        ("gcegnn_Tmall", "all_train_seq.jsonl", '{"session": []}\n', "a session of the set is"),
    ],
)
def test_damaged_sets_are_named(sets: Path, name: str, file: str, text: str, said: str) -> None:
    write(sets / name.partition("/")[0], {file: text})
    with pytest.raises(DataError, match=said):
        load_public_interactions(name)


def test_a_retail_file_without_a_column_is_refused(sets: Path) -> None:
    path = sets.parent / "customers/online_retail_uci/online_retail.csv.xz"
    path.write_bytes(lzma.compress(RETAIL.replace("StockCode", "Code").encode()))
    with pytest.raises(DataError, match="no column 'StockCode'"):
        load_public_interactions("online_retail_uci")


def test_absent_sets_and_files_are_named(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 's3rec_amazon/Beauty'"):
        load_public_interactions("s3rec_amazon/Beaty")
    with pytest.raises(DataError, match=r"Toys_and_Games\.txt does not exist"):
        load_public_interactions("s3rec_amazon/Toys")
    monkeypatch.delenv("AFTERSALES_PUBLIC_DATA")
    with pytest.raises(ConfigError, match="set AFTERSALES_PUBLIC_DATA"):
        load_public_interactions("ml1m_gsasrec")


@pytest.mark.public
@pytest.mark.parametrize(
    ("name", "items", "users", "training", "validation", "test"),
    [
        ("ml1m_gsasrec", 3416, 6040, 987_019, 512, 6040),
        ("s3rec_amazon/Beauty", 12_101, 22_363, 198_502 - 2 * 22_363, 22_363, 22_363),
        ("s3rec_amazon/Toys", 11_924, 19_412, 167_597 - 2 * 19_412, 19_412, 19_412),
        ("s3rec_amazon/Sports", 18_357, 35_598, 296_337 - 2 * 35_598, 35_598, 35_598),
        ("s3rec_amazon/Yelp", 20_033, 30_431, 316_354 - 2 * 30_431, 30_431, 30_431),
        ("gcegnn_Tmall", 40_727, 65_286, 351_268 + 65_286, 61_080, 25_898),
        ("online_retail_uci", 3676, 4363, 276_494, 46_415, 54_888),
    ],
)
def test_public_sets_have_their_published_extent(
    name: str, items: int, users: int, training: int, validation: int, test: int
) -> None:
    data = load_public_interactions(name)
    split = data.split
    assert (data.interactions.n_items, data.interactions.n_users) == (items, users)
    assert len(data.published_train.events) == training
    assert (len(split.validation.targets), len(split.test.targets)) == (validation, test)
    assert name in INTERACTIONS and np.isin(split.test.targets, np.arange(1, items + 1)).all()
