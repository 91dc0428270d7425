"""The contract of every registered recommender, what is particular to each, and the exported folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aftersales.cli.training import run_recipe
from aftersales.core.errors import ConfigError, DataError, ModelError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Event, Interactions, Item, leave_one_out
from aftersales.corpora.synthetic_interactions import generate
from aftersales.evaluation.rank_metrics import gains
from aftersales.evaluation.ranking import served_ranks
from aftersales.recommenders import RECOMMENDERS, Recommender, create
from aftersales.runtime.events import DAY, EVENT_KINDS, KIND_NUMBERS, Inputs, PastEvent
from aftersales.runtime.filters import Filters
from aftersales.runtime.manifest import seal
from aftersales.runtime.recommender import Recommender as Served
from aftersales.tracking.gate import GateRefused, history_of, promote
from aftersales.tracking.registry import evidence_of, run_of

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "sequential": {"epochs": 2, "dimensions": 16, "blocks": 1, "max_length": 8},
    "ials": {"factors": 8, "iterations": 3},
    "content": {"ngrams": 1.0, "dimensions": 16},
}
T = 1_735_689_600


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    return generate(seed=3, users=60).only(["buy", "service"])


@pytest.fixture(scope="module", params=sorted(RECOMMENDERS))
def model(request: pytest.FixtureRequest, interactions: Interactions) -> Recommender[Any]:
    return new(request.param).fit(interactions)


@pytest.fixture(scope="module")
def served(model: Recommender[Any], tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served.load(exported(model, tmp_path_factory.mktemp(model.name)))


def new(name: str) -> Recommender[Any]:
    return create(name, SMALL.get(name))


def exported(model: Recommender[Any], folder: Path) -> Path:
    model.export(folder)
    seal(folder, "recommender", "recommendation")
    return folder


def sample(interactions: Interactions) -> Histories:
    return Histories.of([[5], [1, 2, 3], [], [7] * 3 + list(range(1, 40)), [interactions.n_items]])


def test_scores_have_the_shape_of_the_contract(model: Recommender[Any], interactions: Interactions) -> None:
    scores = model.score(sample(interactions))
    assert scores.shape == (5, interactions.n_items) and scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_users_and_padding_do_not_change_each_other(
    model: Recommender[Any], interactions: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = model.score(sample(interactions))
    np.testing.assert_allclose(together, model.score(sample(interactions), batch_size=1), atol=1e-5)
    monkeypatch.setattr("aftersales.recommenders.base.NUMBERS_AT_ONCE", 30_000)
    np.testing.assert_allclose(together, model.score(sample(interactions)), atol=1e-5)


def test_an_empty_history_is_answered_with_popularity(model: Recommender[Any], interactions: Interactions) -> None:
    counts = np.bincount(interactions.item_index, minlength=interactions.n_items + 1)[1:]
    assert model.score(Histories.of([[]]))[0].tolist() == counts.tolist()


def test_the_same_seed_gives_the_same_scores_whatever_ran_before(
    model: Recommender[Any], interactions: Interactions
) -> None:
    torch.rand(3)
    again = new(model.name).fit(interactions)
    np.testing.assert_array_equal(model.score(sample(interactions)), again.score(sample(interactions)))


def test_a_second_fit_forgets_the_first(model: Recommender[Any], interactions: Interactions) -> None:
    other = interactions.where(interactions.events["user_id"].to_numpy() < "U00031")
    twice = new(model.name).fit(other).fit(interactions)
    np.testing.assert_array_equal(model.score(sample(interactions)), twice.score(sample(interactions)))
    assert not np.array_equal(twice.fit(other).score(sample(interactions)), model.score(sample(interactions)))


def test_the_exported_graph_gives_the_same_scores(
    model: Recommender[Any], served: Served, interactions: Interactions
) -> None:
    for histories in (sample(interactions), leave_one_out(interactions).test.histories.select(0, 9)):
        expected = model.score(histories)
        for inputs in (histories.inputs(), wider(histories.inputs(), 60), histories.select(0, 1).inputs()):
            assert np.abs(served.scores(inputs) - expected[: len(inputs.history)]).max() <= 1e-4


def wider(inputs: Inputs, length: int) -> Inputs:
    return Inputs(*(np.pad(table, ((0, 0), (length - table.shape[1], 0))) for table in inputs))


def test_a_request_is_the_same_as_the_evaluated_history(
    model: Recommender[Any], served: Served, interactions: Interactions
) -> None:
    histories = leave_one_out(interactions).test.histories.select(0, 3)
    ids = interactions.items["item_id"].to_numpy()
    for row in range(3):
        one = histories.select(row, row + 1)
        days = (one.now[0] - one.times) / DAY
        events = [PastEvent(*event) for event in zip(ids[one.items - 1], kinds_of(one), days, strict=True)]
        expected = model.score(one)
        for order in (events, [PastEvent("gone", "buy", 4.0), *events]):
            np.testing.assert_allclose(served.scores(served.inputs(order)), expected, atol=1e-4)


def kinds_of(histories: Histories) -> list[str]:
    return [EVENT_KINDS[kind - 1] for kind in histories.kinds]


def test_what_has_no_kind_or_lies_in_the_future_is_no_event(served: Served) -> None:
    inputs = served.inputs([PastEvent("P00003", "buy", 9.0), PastEvent("P00007", "buy", 2.0)])
    nothing = served.scores(served.inputs([]))
    for broken in (inputs._replace(kinds=inputs.kinds * 0), inputs._replace(ages=inputs.ages * np.float32(-1))):
        np.testing.assert_array_equal(served.scores(broken), nothing)
    former = served.scores(inputs._replace(kinds=inputs.kinds * [[0, 1]]))
    np.testing.assert_allclose(former, served.scores(served.inputs([PastEvent("P00007", "buy", 2.0)])), atol=1e-4)


def test_requests_with_strange_times_and_kinds(served: Served) -> None:
    service = next(item.item_id for item in served.items if item.kind == "service")
    late = served.inputs([PastEvent("P00003", "buy", 9.0), PastEvent("P00007", "buy", -0.5)])
    assert late.ages.tolist() == [[9.0, 0.0]]  # a clock that is ahead
    swapped = served.inputs([PastEvent("P00007", "buy", 1.0), PastEvent("P00003", "buy", 9.0)])
    assert swapped.history.tolist() == [[served.index["P00003"], served.index["P00007"]]]
    assert served.event_kinds and "view" not in served.event_kinds
    assert served.recommend([PastEvent("P00003", "view")]).reason == "popularity"
    assert served.inputs(["P00003", service]).kinds.tolist() == [[KIND_NUMBERS["buy"], KIND_NUMBERS["service"]]]
    with pytest.raises(ConfigError, match="some events of the history have a time and some have none"):
        served.recommend(["P00003", PastEvent("P00007", "buy", 1.0)])


def test_an_unfitted_model_says_so(model: Recommender[Any], tmp_path: Path) -> None:
    for use in (lambda: new(model.name).score(Histories.of([[1]])), lambda: new(model.name).export(tmp_path)):
        with pytest.raises(ModelError, match="not fitted"):
            use()


def test_strange_input_is_refused(model: Recommender[Any], interactions: Interactions) -> None:
    for index in (0, interactions.n_items + 1):
        with pytest.raises(DataError, match="outside 1"):
            model.score(Histories.of([[index]]))
    with pytest.raises(DataError, match="no events"):
        new(model.name).fit(interactions.only(["view"]))


def test_items_without_events_come_last_where_the_model_has_no_answer_for_them(
    model: Recommender[Any], interactions: Interactions, tmp_path: Path
) -> None:
    catalogue = [Item(*row) for row in interactions.items.itertuples(index=False)]
    events = [Event(*row) for row in interactions.events.itertuples(index=False)]
    newer = new(model.name).fit(Interactions.of([Item("new"), *catalogue, Item("newer")], events))
    folder = exported(newer, tmp_path / "model")
    if not json.loads((folder / "recommender.json").read_text(encoding="utf-8"))["cold_items"]:
        scores = newer.score(sample(interactions))
        assert (scores[:, [0, -1]] == scores.min(axis=1, keepdims=True)).all()


def test_a_graph_that_no_file_can_hold_is_refused_before_it_is_written(
    model: Recommender[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aftersales.recommenders.base.MAX_GRAPH_BYTES", 1000)
    with pytest.raises(ModelError, match=r"items, and a graph can hold 0\.0 GB; leave"):
        model.export(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_unknown_names_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'popularity'"):
        create("popularty")
    for name, recommender in RECOMMENDERS.items():
        with pytest.raises(ConfigError, match=f"options of {name}: unknown key 'nonsense'"):
            create(name, {"nonsense": 1})
        assert create(name).config == recommender.config_type()
    with pytest.raises(ConfigError, match="must divide"):
        create("sequential", {"heads": 3}).fit(generate(users=5))


def test_the_answer_to_a_known_history(served: Served) -> None:
    answer = served.recommend(["P00003", "P99999", "P00007"], k=20, filters=Filters(kind="product", exclude_seen=True))
    assert answer.reason == "history" and answer.unknown == ["P99999"] and answer.model_version == served.version
    assert len(answer.items) == 20 and {item.kind for item in answer.items} == {"product"}
    assert not {"P00003", "P00007"} & {item.item_id for item in answer.items}
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert all(item.title and item.category for item in answer.items)


def test_unknown_and_empty_histories_fall_back_to_popularity(served: Served, interactions: Interactions) -> None:
    most = interactions.events["item_id"].value_counts()
    for history in ([], ["P99999"]):
        answer = served.recommend(history, k=1)
        assert answer.reason == "popularity" and most[answer.items[0].item_id] == most.max()


def test_the_limits_of_k_and_kind(served: Served) -> None:
    assert len(served.recommend(["P00001"], k=10**6, filters=Filters(exclude_seen=True)).items) == len(served.items) - 1
    assert len(served.recommend(["P00001"], k=10**6).items) == len(served.items)
    services = served.recommend(["P00001"], k=10**6, filters=Filters(kind="service"))
    assert {item.kind for item in services.items} == {"service"}
    with pytest.raises(ConfigError, match="at least 1"):
        served.recommend([], k=0)
    with pytest.raises(ConfigError, match="did you mean 'product'"):
        served.recommend([], filters=Filters(kind="produkt"))


def test_altered_folders_are_refused(interactions: Interactions, tmp_path: Path) -> None:
    folder = exported(new("popularity").fit(interactions), tmp_path / "model")
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    (folder / "items.json").write_text(json.dumps(items[1:]), encoding="utf-8")
    with pytest.raises(ModelError, match="corrupt or was altered"):
        Served.load(folder)
    seal(folder, "recommender", "recommendation")
    with pytest.raises(ModelError, match="graph scores"):
        Served.load(folder)
    seal(folder, "classifier", "intent")
    with pytest.raises(ModelError, match="not a recommender"):
        Served.load(folder)


def test_sequential_learns_order_where_popularity_and_ease_cannot() -> None:
    cycle = ["abcdef"[(start + step) % 6] for start in range(6) for step in range(12)]
    events = [Event(f"u{n // 12}", name, "buy", T + n) for n, name in enumerate(cycle)]
    split = leave_one_out(Interactions.of([Item(name) for name in "abcdef"], events))
    model = create("sequential", {"epochs": 60, "dimensions": 16, "blocks": 1, "dropout": 0.0}).fit(split.train)
    assert (model.score(split.test.histories).argmax(axis=1) + 1 == split.test.targets).all()


def test_a_public_set_is_judged_as_it_is_published(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "public" / "s3rec_amazon"
    folder.mkdir(parents=True)
    rows = [[str(user), *(str(1 + (user + step) % 9) for step in range(6))] for user in range(1, 31)]
    (folder / "Beauty.txt").write_text("\n".join(map(" ".join, rows)), encoding="utf-8")
    (folder / "Beauty_item2attributes.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(project / "public"))
    overrides = ["data.public=s3rec_amazon/Beauty", "model.name=item_knn", "model.options={}", "metric=recall@5"]
    outcome = run_recipe(project / "configs/recommend_ease.yaml", tuple(overrides))
    evidence = evidence_of(run_of(outcome.run_id))
    evaluation = json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["exclude_history"] is True and evaluation["rows"] == 30
    assert evaluation["figures"]["recall@5"] == 1.0  # six of nine items, without the five of the history
    assert {"novelty@10", "diversity@10", "popularity_bias@10"} <= set(evaluation["figures"])
    assert set(evaluation["apart"]) == {"warm users", "warm items"}
    card = (outcome.folder / "README.md").read_text(encoding="utf-8")
    assert "the public set `s3rec_amazon/Beauty`" in card and "| warm users | 30 | 1.0000 |" in card
    repeated = [*overrides, "exclude_history=false"]
    evidence = evidence_of(run_of(run_recipe(project / "configs/recommend_ease.yaml", tuple(repeated)).run_id))
    assert json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))["exclude_history"] is False


@pytest.mark.parametrize("config", ["recommend", "recommend_ease"])
def test_a_trained_recommender_passes_the_gate_and_serves(config: str, project: Path) -> None:
    overrides = ["data.users=40"]
    if config == "recommend":
        overrides += [f"model.options.{key}={value}" for key, value in SMALL["sequential"].items()]
    outcome = run_recipe(project / "configs" / f"{config}.yaml", tuple(overrides))
    evidence = evidence_of(run_of(outcome.run_id))
    evaluation = json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (evidence / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    served = Served.load(outcome.folder)
    ranks = served_ranks(
        served, [history_of(row) for row in rows], [row["target"] for row in rows], set(evaluation["candidates"]), False
    )
    # What is evaluated is what is served, but for scores that are equal up to the order of summation.
    assert np.mean(ranks == [row["rank"] for row in rows]) > 0.8
    assert evaluation["figures"]["hr@10"] == pytest.approx((ranks <= 10).mean(), abs=0.06)
    card = (outcome.folder / "README.md").read_text(encoding="utf-8")
    assert f"| hr@10 | {evaluation['figures']['hr@10']:.4f} |" in card and "synthetic" in card
    ours, floor = (gains("ndcg@10", np.array(found)).mean() for found in (ranks, [row["floor_rank"] for row in rows]))
    if ours > floor:
        assert "champion of recommendation is now version 1" in promote(outcome.run_id).report()
    else:
        with pytest.raises(GateRefused, match="FAIL  beats its floor: ndcg@10"):
            promote(outcome.run_id)
