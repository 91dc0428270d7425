"""What a platform asks of /v1/recommend: by user, with filters and reasons, in an experiment, with a log."""

import json
import resource
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from serving.door import RefusedError
from serving.exposures import Exposure, ExposureLog
from serving.recommending import Recommending, read_experiment
from serving.settings import VARIABLES, Settings, absolute
from serving.shop import Shop
from tests.serving.conftest import NOW, Platform, Served

from aftersales.core.errors import ConfigError
from aftersales.corpora.history_store import build_histories
from aftersales.corpora.interaction_tables import Columns
from aftersales.corpora.interactions import Event
from aftersales.runtime.assignment import Assigner, Experiment, Experiments
from aftersales.runtime.catalogue import Catalogue, CatalogueItem
from aftersales.runtime.events import DAY
from aftersales.runtime.protocol import MAX_HISTORY, ModelInfo, RecommendRequest
from aftersales.runtime.recommender import Recommender

MARKER = "机密13800138000秘密"


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["item_id"] for one in answer.json()["results"]]


def variant_of(user_id: str, platform: Platform) -> str:
    return str(platform.recommend(user_id=user_id).json()["experiment"]["variant"])


def test_a_stored_history_is_looked_up(platform: Platform) -> None:
    body = platform.recommend(user_id="甲", k=3).json()
    assert (body["known_user"], body["reason"], body["unknown"]) == (True, "history", [])
    assert body["results"][0]["reason"] == {"code": "same_type", "text": "因为你买过「手机壳 1号」"}
    assert not {"P001"} & set(ids(platform.recommend(user_id="甲", k=100, exclude_seen=True)))
    assert "P002" in ids(platform.recommend(user_id="甲", k=100, exclude_seen=True)), "only viewed"


def test_an_unknown_user_gets_what_is_popular_and_is_told_so(platform: Platform) -> None:
    body = platform.recommend(user_id="never seen", k=3).json()
    assert (body["known_user"], body["reason"]) == (False, "popularity")
    assert {one["reason"]["code"] for one in body["results"]} == {"popularity"}
    gone = platform.recommend(user_id="乙").json()
    assert (gone["known_user"], gone["reason"], gone["unknown"]) == (True, "popularity", [])
    both = platform.recommend(user_id="乙", history=["went"]).json()
    assert both["unknown"] == ["went"], "what is stored is not told"


def test_what_a_request_says_comes_after_what_is_stored(platform: Platform) -> None:
    body = platform.recommend(user_id="甲", history=["P005"], k=1).json()
    assert body["results"][0]["reason"]["text"] == "因为你买过「手机壳 5号」"
    earlier = [{"item_id": "P005", "kind": "buy", "timestamp": NOW - 9 * DAY}]
    body = platform.recommend(user_id="甲", history=earlier, now=NOW, k=1).json()
    assert body["results"][0]["reason"]["text"] == "因为你买过「手机壳 1号」"
    again = [{"item_id": "P001", "timestamp": NOW - 5 * DAY}] * 2
    assert platform.recommend(user_id="甲", history=again, now=NOW).json()["reason"] == "history"


def test_the_future_has_not_happened(platform: Platform) -> None:
    body = platform.recommend(user_id="未来", now=NOW).json()
    assert (body["known_user"], body["reason"]) == (True, "popularity")
    assert platform.recommend(user_id="未来", now=NOW + DAY).json()["reason"] == "history"
    ahead = [{"item_id": "P005", "timestamp": NOW + 900}]
    assert platform.recommend(history=ahead, now=NOW).json()["reason"] == "history", "a clock that is ahead"


def test_without_a_store_a_user_id_alone_is_refused_by_the_setting(served: Served) -> None:
    answer = served.post("/v1/recommend", {"user_id": MARKER})
    assert answer.status_code == 503 and MARKER not in answer.text
    assert "AFTERSALES_HISTORIES" in answer.json()["error"] and answer.json()["detail"][0]["field"] == "user_id"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    body = served.post("/v1/recommend", {"user_id": "甲", "history": []}).json()
    assert (body["known_user"], body["experiment"], body["reason"]) == (None, None, "popularity")


def test_what_the_shop_no_longer_sells_is_never_shown(platform: Platform) -> None:
    everything = ids(platform.recommend(history=["P029"], k=100, kind=None))
    assert not {"P029", "S1", "P000"} & set(everything) and len(everything) == 29
    assert "P000" in ids(platform.recommend(history=[], k=100, in_stock=False))
    assert ids(platform.recommend(history=[], k=100, kind="service")) == ["S0"]
    before = platform.stock.read_text()
    platform.stock.write_text("P000\nP004\n")
    try:
        assert "P004" not in ids(platform.recommend(history=[], k=100))
    finally:
        platform.stock.write_text(before)
    assert "P004" in ids(platform.recommend(history=[], k=100))


def test_filters_narrow_and_k_may_be_more_than_is_left(served: Served) -> None:
    def asked(**body: object) -> list[str]:
        return ids(served.post("/v1/recommend", {"history": [], "k": 100, "kind": None, **body}))

    assert set(asked(categories=["售后服务"])) == {"S0", "S1"}
    assert len(asked(exclude_categories=["售后服务"])) == 30
    assert set(asked(price_max=2)) == {"P000", "P001", "S0", "S1"}
    assert len(asked(exclude_items=["P000", "P000", "never heard of"])) == 31
    assert asked(categories=["售后服务"], exclude_items=["S0", "S1"]) == []


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({"categories": ["售后服务", "手机配"]}, "categories[1]", "did you mean '手机配件'?"),
        ({"exclude_categories": [MARKER[:40]]}, "exclude_categories[0]", "known: 手机配件, 售后服务"),
        ({"categories": []}, "categories", "at least 1 item"),
        ({"categories": "手机配件"}, "categories", "array"),
        ({"price_max": -1}, "price_max", "greater than or equal to 0"),
        ({"price_max": MARKER}, "price_max", "number"),
        ({"exclude_items": [MARKER * 9]}, "exclude_items[0]", "at most 64 "),
        ({"exclude_items": {"a": MARKER}}, "exclude_items", "array"),
        ({"in_stock": MARKER}, "in_stock", "boolean"),
        ({"user_id": ""}, "user_id", "at least 1 "),
        ({"user_id": MARKER * 9}, "user_id", "at most 128 "),
        ({"user_id": ["甲"]}, "user_id", "string"),
        ({"user_id": {"$ne": None}}, "user_id", "string"),
        ({"history": None}, "history", "array"),
        ({"history": [[MARKER]]}, "history[0]", "object"),
        ({"history": [None]}, "history[0]", "object"),
        ({"k": 10**30}, "k", "100"),
        ({"k": True}, "k", "integer"),
        ({"k": 2.5}, "k", "integer"),
        ({"now": -1}, "now", "greater than or equal to 0"),
    ],
)
def test_hostile_fields_are_refused_by_name_and_not_repeated(
    served: Served, body: dict[str, object], field: str, problem: str
) -> None:
    answer = served.post("/v1/recommend", {"history": [], **body})
    assert answer.status_code == 422
    assert any(one["field"].startswith(field) and problem in one["problem"] for one in answer.json()["detail"])
    assert MARKER[:4] not in answer.text


def test_nobody_is_refused(served: Served) -> None:
    for body in ({}, {"k": 3}, {"user_id": None}):
        answer = served.post("/v1/recommend", body)
        assert answer.status_code == 422 and "give user_id, history (empty for a new customer)" in answer.text


def test_strange_histories_are_answered(served: Served) -> None:
    event = {"item_id": "P001", "kind": "buy", "timestamp": NOW}
    for history in ([event] * 1000, [event, {**event, "item_id": "P002"}], [event, {**event, "kind": "return"}]):
        body = served.post("/v1/recommend", {"history": history, "now": NOW, "k": 100, "kind": None}).json()
        assert len(body["results"]) == 32 and body["reason"] == "history" and not body["unknown"]
    hostile = ["' OR 1=1 --", "\u0000", "../../etc/passwd", "{0}", "P001\n"]
    body = served.post("/v1/recommend", {"history": hostile, "exclude_items": hostile}).json()
    assert (body["reason"], body["unknown"]) == ("popularity", hostile)


def test_variants_differ_and_the_answer_names_them(platform: Platform) -> None:
    experiment = Experiments.model_validate(
        {
            "experiments": [
                {
                    "name": "order",
                    "salt": "1",
                    "control": "today",
                    "variants": [{"name": "today", "weight": 0.5}, {"name": "backwards", "weight": 0.5}],
                }
            ]
        }
    ).experiment()
    versions = set()
    for number in range(30):
        body = platform.recommend(user_id=f"u{number}", k=100, in_stock=False).json()
        expected = Assigner(experiment).variant(f"u{number}")
        assert body["experiment"] == {"name": "order", "variant": expected, "assigned": True}
        versions.add((expected, body["model"]["version"]))
    assert len(versions) == 2
    body = platform.recommend(history=[]).json()
    assert body["experiment"] == {"name": "order", "variant": "today", "assigned": False}


def rows_of(path: Path, user_id: str, least: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    found: list[dict[str, Any]] = []
    while len(found) < least and time.monotonic() < deadline:
        time.sleep(0.02)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = [row for row in map(json.loads, lines) if row["user_id"] == user_id]
    return found


def test_what_is_shown_to_a_user_is_logged_with_its_chance(platform: Platform) -> None:
    users = {variant_of(f"log{number}", platform): f"log{number}" for number in range(20)}
    today, chance = (platform.recommend(user_id=users[name], k=4) for name in ("today", "backwards"))
    for answer, name in ((today, "today"), (chance, "backwards")):
        rows = rows_of(platform.log, users[name], 14)[-4:]
        assert [row["item_id"] for row in rows] == ids(answer)
        assert [row["position"] for row in rows] == [1, 2, 3, 4]
        assert {row["request_id"] for row in rows} == {answer.json()["request_id"]}
        assert {(row["experiment"], row["variant"]) for row in rows} == {("order", name)}
        assert {row["model_version"] for row in rows} == {answer.json()["model"]["version"]}
        if name == "today":
            assert {row["propensity"] for row in rows} == {1.0}
        else:
            assert all(0 < row["propensity"] < 1 for row in rows)
        best = rows[0]["candidates"]
        assert len(best) == (10 if name == "backwards" else 4) and [row["candidates"] for row in rows[1:]] == [None] * 3
        assert [best[row["rank"] - 1][0] if row["rank"] <= len(best) else None for row in rows] == ids(answer)
        assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)
    firsts = {ids(platform.recommend(user_id=users["backwards"], k=1))[0] for _ in range(40)}
    assert 2 <= len(firsts) <= 10


# Without a server: what ends a start, and what chance does.


def experiment_file(path: Path, variants: str, more: str = "") -> Path:
    text = f'experiments:\n  - {{name: x, salt: "1", control: a, variants: [{variants}]}}\n{more}'
    path.write_text(text, encoding="utf-8")
    return path


def test_an_experiment_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    two = "{name: a, weight: 0.5}, {name: b, weight: 0.5, recommender: backward}"
    with pytest.raises(ConfigError, match=r"variant 'b' .*'backward', which is not packaged; did you mean 'backwards'"):
        read_experiment(experiment_file(tmp_path / "e.yaml", two), {"champion": 1, "backwards": 2})
    plain = "{name: a, weight: 0.5}, {name: b, weight: 0.5}"
    more = f'  - {{name: y, salt: "1", control: a, variants: [{plain}]}}\n'
    with pytest.raises(ConfigError, match="lists 2 experiments; a service runs one"):
        read_experiment(experiment_file(tmp_path / "e.yaml", plain, more), {"champion": 1})
    with pytest.raises(ConfigError, match="explore"):
        hot = "{name: a, weight: 0.5}, {name: b, weight: 0.5, explore: -1}"
        read_experiment(experiment_file(tmp_path / "e.yaml", hot), {"champion": 1})


def test_settings_are_read_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {VARIABLES[0]: "h.sqlite", VARIABLES[1]: "", "OTHER": "x"}
    assert Settings.read(environment) == Settings(histories=Path("h.sqlite"))
    assert absolute(environment) == {**environment, VARIABLES[0]: str(tmp_path / "h.sqlite")}


def test_item_lists_that_cannot_be_used_end_the_start_and_later_only_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [CatalogueItem(item_id=name, title=name, category="", kind="product") for name in ("A", "B")]
    catalogues = {"champion": Catalogue(items)}
    with pytest.raises(ConfigError, match=r"AFTERSALES_OUT_OF_STOCK: .*none.txt cannot be read"):
        Shop(None, tmp_path / "none.txt", catalogues)
    (tmp_path / "allowed.txt").write_text("X\n")
    with pytest.raises(ConfigError, match=r"AFTERSALES_ALLOWED_ITEMS: .* lists no item of the model"):
        Shop(tmp_path / "allowed.txt", None, catalogues)
    (tmp_path / "allowed.txt").write_text("\ufeffA\r\n\r\n B \r\n", encoding="utf-8")
    (tmp_path / "out.txt").write_text("A")
    shop = Shop(tmp_path / "allowed.txt", tmp_path / "out.txt", catalogues)
    for _ in range(2):
        first, second = shop.among("champion", True), shop.among("champion", False)
        assert first is not None and second is not None
        assert first.tolist() == [False, True] and second.tolist() == [True, True]
        (tmp_path / "out.txt").unlink(missing_ok=True)
    assert Shop(None, None, catalogues).among("champion", True) is None


@pytest.mark.parametrize("damaged", [b"", b"X\n", b"\xff\xfe\xff"])
def test_a_list_that_would_be_refused_at_the_start_leaves_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    items = [CatalogueItem(item_id=name, title=name, category="", kind="product") for name in ("A", "B")]
    path = tmp_path / "allowed.txt"
    path.write_text("A\n")
    shop = Shop(path, None, {"champion": Catalogue(items)})

    def allowed() -> list[bool]:
        mask = shop.among("champion", in_stock=True)
        assert mask is not None
        return mask.tolist()

    path.write_bytes(damaged)
    assert [allowed() for _ in range(3)] == [[True, False]] * 3
    assert caplog.text.count("the list read before stays in force: AFTERSALES_ALLOWED_ITEMS") == 1
    path.write_text("A\nB\n")
    assert allowed() == [True, True]


def exposure(number: int) -> Exposure:
    return Exposure(f"r{number}", 1.0, "甲", None, None, 1, "P1", 1.0, "v", 1, None)


def test_the_log_keeps_what_it_took_drops_what_it_cannot_and_survives_a_move(tmp_path: Path) -> None:
    path = tmp_path / "shown.jsonl"
    log = ExposureLog(path)
    for number in range(500):
        log.add([exposure(number)])
    deadline = time.monotonic() + 10
    while not path.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    path.rename(tmp_path / "moved.jsonl")
    log.add([exposure(500)])
    log.close()
    lines = (tmp_path / "moved.jsonl").read_text() + (path.read_text() if path.exists() else "")
    assert [json.loads(line)["request_id"] for line in lines.splitlines()] == [f"r{number}" for number in range(501)]
    with pytest.raises(ConfigError, match=r"AFTERSALES_RECOMMENDATION_LOG: .* cannot be written"):
        ExposureLog(tmp_path / "no folder" / "shown.jsonl")
    full = ExposureLog(tmp_path / "full.jsonl", capacity=1)
    for number in range(2000):
        full.add([exposure(number)] * 3)
    full.close()
    kept = len((tmp_path / "full.jsonl").read_text().splitlines())
    assert kept + full.dropped == 6000 and kept % 3 == 0


def test_a_write_that_fails_leaves_no_half_line_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, counted = tmp_path / "shown.jsonl", list[int]()
    path.write_text('{"request_id": "of a service that was killed')

    def wait_for(drops: int) -> None:
        deadline = time.monotonic() + 10
        while len(counted) < drops and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(counted) == drops

    log = ExposureLog(path, count_dropped=counted.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))  # a disk that is full half-way
    try:
        log.add([exposure(number) for number in range(9)])
        wait_for(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.add([exposure(9)])
    log.close()
    assert log.dropped == sum(counted) == 9
    last = path.read_text(encoding="utf-8").splitlines()[1:]
    assert [json.loads(line)["request_id"] for line in last] == ["r9"]
    assert "9 by now: the file cannot be written" in caplog.text


def store(path: Path, events: list[Event]) -> Settings:
    rows = "".join(json.dumps(event._asdict(), ensure_ascii=False) + "\n" for event in events)
    (path / "events.jsonl").write_text(rows, encoding="utf-8")
    build_histories(path / "events.jsonl", path / "histories.sqlite", Columns(), NOW)
    return Settings(histories=path / "histories.sqlite")


def plain(models: dict[str, Path], settings: Settings) -> Recommending:
    recommender = Recommender.load(models["recommendation"])
    info = ModelInfo(name="recommendation", version=recommender.version, data_version="d")
    return Recommending({"champion": recommender}, {"champion": info}, settings)


def test_what_was_bought_counts_however_much_was_seen_since(models: dict[str, Path], tmp_path: Path) -> None:
    views = [Event("甲", "P002", "view", NOW - 5000 + number) for number in range(MAX_HISTORY)]
    bought = [Event("甲", "P004", "buy", NOW - 9 * DAY + number) for number in range(MAX_HISTORY)]
    early = [Event("甲", "P001", "buy", NOW - 10 * DAY)]
    recommending = plain(models, store(tmp_path, [*early, *bought, *views]))
    answer = recommending.answer(RecommendRequest(user_id="甲", k=100, exclude_seen=True), "r", NOW)
    assert (answer.known_user, answer.reason) == (True, "history")
    shown = {item.item_id for item in answer.results}
    assert "P002" in shown and not {"P001", "P004"} & shown


def test_a_store_that_breaks_leaves_the_history_of_the_request(
    models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = store(tmp_path, [Event("甲", "P001", "buy", NOW - DAY)])
    recommending = plain(models, settings)
    (tmp_path / "histories.sqlite").write_bytes(b"spoilt")
    answer = recommending.answer(RecommendRequest(user_id="甲", history=["P003"], exclude_seen=True), "r", NOW)
    assert (answer.known_user, answer.reason) == (None, "history")
    assert "P003" not in {item.item_id for item in answer.results}
    with pytest.raises(RefusedError, match="mend AFTERSALES_HISTORIES, or send history"):
        recommending.answer(RecommendRequest(user_id="甲"), "r", NOW)
    assert caplog.text.count("histories.sqlite cannot be read as histories (file is not a database)") == 2


def test_what_is_not_sent_is_not_logged(models: dict[str, Path], tmp_path: Path) -> None:
    recommender = Recommender.load(models["recommendation"])
    info = ModelInfo(name="recommendation", version=recommender.version, data_version="d")
    path = tmp_path / "shown.jsonl"
    recommending = Recommending({"champion": recommender}, {"champion": info}, Settings(log=path))
    once_sent = list[Callable[[], None]]()
    for number in range(2):
        request = RecommendRequest(user_id=f"u{number}", history=[], k=3)
        recommending.answer(request, f"r{number}", 1.0, once_sent.append)
    once_sent[1]()
    recommending.close()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["request_id"] for row in rows] == ["r1"] * 3


def test_every_request_answers_the_same_without_chance(models: dict[str, Path], tmp_path: Path) -> None:
    recommender = Recommender.load(models["recommendation"])
    info = ModelInfo(name="recommendation", version=recommender.version, data_version="d")
    two = "{name: a, weight: 0.5}, {name: b, weight: 0.5, explore: 0.5}"
    settings = Settings(experiment=experiment_file(tmp_path / "e.yaml", two))
    shown = set()
    for drawn in (0.0, 0.3, 0.6, 0.999999):
        recommending = Recommending(
            {"champion": recommender}, {"champion": info}, settings, draw=repeat(drawn).__next__
        )
        users = {recommending._variant(f"u{n}")[0].name: f"u{n}" for n in range(20)}
        for name, user in users.items():
            answer = recommending.answer(RecommendRequest(user_id=user, history=[], k=5), "r", 1.0)
            shown.add((name, tuple(item.item_id for item in answer.results)))
            assert len({item.item_id for item in answer.results}) == 5
    assert len([names for name, names in shown if name == "a"]) == 1
    assert len([names for name, names in shown if name == "b"]) > 1
    assert isinstance(recommending._experiment, Experiment)
