"""What is particular to the sequential transformer: its losses, windows, choice of the epoch, and what it sees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from aftersales.cli.training import run_recipe
from aftersales.core.errors import ConfigError, DataError, ModelError
from aftersales.corpora.histories import Histories, Scorer
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.corpora.public.interactions import of_sequences
from aftersales.recommenders import create
from aftersales.recommenders.features import ItemTable, Properties
from aftersales.recommenders.sequential import SequentialConfig, losses
from aftersales.recommenders.sequential.losses import Loss, gbce, sampled_softmax
from aftersales.recommenders.sequential.network import Events, Transformer, bucket
from aftersales.recommenders.sequential.windows import Windows
from aftersales.runtime.events import DAY, KIND_NUMBERS, PastEvent
from aftersales.runtime.manifest import seal
from aftersales.runtime.recommender import Recommender as Served
from aftersales.tracking.registry import evidence_of, run_of

T = 1_735_689_600
QUICK: dict[str, Any] = {"epochs": 40, "dimensions": 16, "dropout": 0.0, "learning_rate": 0.01, "batch_size": 32}


def bought(rows: list[list[int]], n_items: int) -> Interactions:
    return of_sequences(
        [str(number) for number in range(1, n_items + 1)],
        [[str(item) for item in row] for row in rows],
        [f"u{number:03d}" for number in range(len(rows))],
    )


CYCLES = bought([[1 + (start + step) % 6 for step in range(5)] for start in range(6)] * 3, 6)


# --- losses


def test_the_cross_entropy_and_its_gradients_are_exact_however_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 30)
    torch.manual_seed(0)
    states = torch.randn(11, 4, dtype=torch.double, requires_grad=True)
    matrix = torch.randn(7, 4, dtype=torch.double, requires_grad=True)
    targets = torch.randint(7, (11,))
    loss = Loss(SequentialConfig(), np.ones(7))
    assert torch.autograd.gradcheck(lambda a, b: 3 * loss(a, b, targets), (states, matrix))
    torch.testing.assert_close(loss(states, matrix, targets), functional.cross_entropy(states @ matrix.t(), targets))


def test_gbce_is_its_definition() -> None:
    positive, negative = torch.randn(5).double(), torch.randn(5, 3).double()
    for calibration, power in ((0.0, 1.0), (1.0, 3 / 10), (0.75, 0.3 * (0.75 * (1 - 1 / 0.3) + 1 / 0.3))):
        raised = positive.sigmoid() ** power
        expected = -(raised.log() + (1 - negative.sigmoid()).log().sum(dim=1)).mean() / 4
        torch.testing.assert_close(gbce(positive, negative, 11, calibration), expected)


def test_the_sampled_softmax_estimates_the_whole_one() -> None:
    torch.manual_seed(1)
    scores, target = torch.randn(1, 50).double(), 7
    whole = functional.cross_entropy(scores, torch.tensor([target]))
    shares = torch.rand(50).double() + 0.1
    shares /= shares.sum()
    drawn = torch.multinomial(shares, 100_000, replacement=True)
    negative = scores[:, drawn].masked_fill(drawn == target, float("-inf"))
    found = sampled_softmax(scores[:, target], negative, shares[drawn].log())
    torch.testing.assert_close(found, whole, atol=0.02, rtol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "gbce", "sampled_softmax"])
def test_items_without_events_are_no_negatives(loss: str) -> None:
    config = SequentialConfig(loss=loss, negatives=50)  # type: ignore[arg-type]
    states, matrix = torch.randn(6, 4), torch.randn(5, 4, requires_grad=True)
    of_all = Loss(config, np.array([3, 0, 1, 0, 2]))
    value = of_all(states, matrix, torch.tensor([0, 2, 4, 0, 2, 4]))
    value.backward()
    assert matrix.grad is not None and matrix.grad.any(dim=1).tolist() == [True, False, True, False, True]
    if loss == "cross_entropy":
        of_known = Loss(config, np.array([3, 1, 2]))(states, matrix[[0, 2, 4]], torch.tensor([0, 1, 2, 0, 1, 2]))
        torch.testing.assert_close(value, of_known)


# --- windows


def test_every_step_is_learned_once_and_windows_with_nothing_to_learn_are_left_out() -> None:
    rows = [list(range(1, 10)), [3], [4, 5], []]
    windows = Windows.of(Histories.of(rows), SequentialConfig(max_length=4))
    read, mask, following = windows.batch(torch.arange(len(windows)))
    pairs = sorted(zip(read.items[mask].tolist(), following.tolist(), strict=True))
    assert pairs == [(n, n + 1) for n in range(1, 9)][:3] + [(4, 5)] * 2 + [(n, n + 1) for n in range(5, 9)]
    assert (read.items[:, 0] > 0).all() and read.items.shape[1] == 4


def test_only_the_target_kinds_are_learned_and_the_time_to_the_next_event_is_seen() -> None:
    steps: list[tuple[str, Any, float]] = [("a", "view", 0), ("b", "buy", 1), ("b", "return", 9), ("c", "buy", 9)]
    events = [Event("u", name, kind, T + int(days * DAY)) for name, kind, days in steps]
    data = Interactions.of([Item(name) for name in "abc"], events)
    read, mask, following = Windows.of(data.histories(), SequentialConfig(targets=("buy",))).batch(torch.tensor([0]))
    assert read.items[mask].tolist() == [1, 2] and following.tolist() == [2, 3]
    assert read.kinds.tolist() == [[KIND_NUMBERS[kind] for kind in ("view", "buy", "return")]]
    assert read.waits.tolist() == [bucket(torch.tensor([1.0, 8.0, 0.0])).tolist()]
    assert bucket(torch.tensor([0.0, 1 / 2000, 1 / 1440, 1100.0])).tolist() == [0, 0, 1, 42]
    with pytest.raises(DataError, match=r"no user has an event and then one of model\.options\.targets \(cart\)"):
        create("sequential", {"targets": ["cart"]}).fit(data)


def test_training_and_serving_see_the_same_states() -> None:
    torch.manual_seed(2)
    config = SequentialConfig(dimensions=8, blocks=2, kinds=True, times=True, max_length=6)
    network, matrix = Transformer(config).eval(), torch.randn(10, 8)
    matrix[0] = 0
    left = Events(torch.tensor([[4, 2, 9, 0, 0]]), torch.tensor([[3, 6, 3, 0, 0]]), torch.tensor([[5, 1, 7, 0, 0]]))
    right = Events(*(torch.roll(table, 2, dims=1) for table in left))
    torch.testing.assert_close(
        network.states(matrix, left, left_aligned=True)[:, :3], network.states(matrix, right)[:, 2:]
    )


# --- fitting


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    options = {**QUICK, "epochs": 30, "patience": 2, "seed": 5}
    figures = iter([0.1, 0.5, 0.3, 0.4, 0.9])

    def judge(score: Scorer) -> float:
        assert score(CYCLES.histories()).shape == (18, 6)
        return next(figures)

    model = create("sequential", options).fit(CYCLES, judge)
    assert model.chosen == {"stop_after": 2} and model.curve == [(1, 0.1), (2, 0.5), (3, 0.3), (4, 0.4)]
    again = create("sequential", options | model.chosen).fit(CYCLES)
    np.testing.assert_array_equal(model.score(CYCLES.histories()), again.score(CYCLES.histories()))


@pytest.mark.parametrize("loss", ["cross_entropy", "gbce", "sampled_softmax"])
def test_a_training_that_was_stopped_goes_on_to_the_same_end(loss: str, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 4, "dropout": 0.3, "item_dropout": 0.1, "loss": loss, "negatives": 3}
    figures = iter([0.1, 0.2, KeyboardInterrupt(), 0.3, 0.4])

    def judge(_: Scorer) -> float:
        figure = next(figures)
        if isinstance(figure, KeyboardInterrupt):
            raise figure
        return figure

    with pytest.raises(KeyboardInterrupt):
        create("sequential", options).fit(CYCLES, judge, tmp_path / "work")
    resumed = create("sequential", options).fit(CYCLES, judge, tmp_path / "work")
    assert [epoch for epoch, _ in resumed.curve] == [1, 2, 3, 4]
    whole = create("sequential", options).fit(CYCLES)
    np.testing.assert_array_equal(resumed.score(CYCLES.histories()), whole.score(CYCLES.histories()))


@pytest.mark.parametrize("damage", ["cut", "another network", "empty"])
def test_a_checkpoint_that_cannot_be_read_is_named(damage: str, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 1, "dimensions": 8}
    create("sequential", options).fit(CYCLES, work=tmp_path / "work")
    state = tmp_path / "work/state.pt"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:500])
    elif damage == "empty":
        state.write_bytes(b"")
    else:
        options["blocks"] = 2
    with pytest.raises(ModelError, match=r"work cannot be read .*; remove the folder to begin anew"):
        create("sequential", options).fit(CYCLES, work=tmp_path / "work")


@pytest.mark.parametrize(
    "options", [{"loss": "gbce", "negatives": 4}, {"loss": "sampled_softmax", "negatives": 4}, {"temperature": 0.1}]
)
def test_every_way_to_learn_learns_the_order(options: dict[str, Any]) -> None:
    model = create("sequential", {**QUICK, "epochs": 80, **options}).fit(CYCLES)
    after = model.score(Histories.of([[1, 2, 3], [5, 6, 1]])).argmax(axis=1) + 1
    assert after.tolist() == [4, 2]


# --- what it sees


def following(rows: list[tuple[str, float]], n: int = 12) -> Interactions:
    """After x, with some kind, and some days later: y where the kind is buy and the wait short, else z."""
    events = []
    for user in range(n * len(rows)):
        kind, days = rows[user % len(rows)]
        events.append(Event(f"u{user:03d}", "x", kind, T))  # type: ignore[arg-type]
        target = "y" if kind == "buy" and days < 5 else "z"
        events.append(Event(f"u{user:03d}", target, "buy", T + int(days * DAY)))
    return Interactions.of([Item(name) for name in "xyz"], events)


def likeliest(model: Any, kind: str, days: float) -> int:
    now = np.array([T + int(days * DAY)])
    one = Histories(["u"], np.array([1]), np.array([0, 1]), np.array([KIND_NUMBERS[kind]]), np.array([T]), now)
    return int(model.score(one)[0, 1:].argmax())


def test_kinds_and_times_are_seen_where_they_are_switched_on() -> None:
    by_kind = create("sequential", {**QUICK, "kinds": True}).fit(following([("buy", 1.0), ("return", 1.0)]))
    assert (likeliest(by_kind, "buy", 1.0), likeliest(by_kind, "return", 1.0)) == (0, 1)
    by_time = create("sequential", {**QUICK, "times": True}).fit(following([("buy", 1.0), ("buy", 30.0)]))
    assert (likeliest(by_time, "buy", 1.0), likeliest(by_time, "buy", 30.0)) == (0, 1)
    blind = create("sequential", QUICK).fit(following([("buy", 1.0), ("return", 1.0)]))
    assert likeliest(blind, "buy", 1.0) == likeliest(blind, "return", 30.0)
    with pytest.raises(DataError, match=r"leave out model\.options\.times"):
        create("sequential", {"times": True}).fit(CYCLES)


def test_an_unknown_time_is_not_taken_for_just_now(tmp_path: Path) -> None:
    rows = [("buy", 0.0), ("buy", 30.0), ("buy", 30.0)]
    model = create("sequential", {**QUICK, "times": True}).fit(following(rows))
    assert (likeliest(model, "buy", 0.0), likeliest(model, "buy", 30.0)) == (0, 1)
    assert int(model.score(Histories.of([[1]]))[0, 1:].argmax()) == 1  # what most did, whenever it was
    model.export(tmp_path / "model")
    seal(tmp_path / "model", "recommender", "recommendation")
    served = Served.load(tmp_path / "model")
    for history, best in (([PastEvent("x", "buy", 0.0)], "y"), ([PastEvent("x", "buy")], "z"), (["x"], "z")):
        shown = [item.item_id for item in served.recommend(history, k=3).items if item.item_id != "x"]
        assert shown[0] == best


def test_items_without_events_are_ranked_by_what_is_known_of_them(tmp_path: Path) -> None:
    items = [Item(f"{kind}{n}", category=kind, attributes="new|x"[4 * (n < 4) :]) for kind in "ab" for n in range(5)]
    places = [(user, step) for user in range(32) for step in range(3)]
    events = [Event(f"u{u:03d}", f"{'ab'[u % 2]}{(u // 2 + step) % 4}", "buy", T + step) for u, step in places]
    data = Interactions.of(items, events)
    model = create("sequential", {**QUICK, "features": ["category", "attributes"], "id_dropout": 0.5}).fit(data)
    scores = model.score(Histories.of([[1, 2], [6, 7]]))  # the new items are a4, index 5, and b4, index 10
    assert scores[0, 4] > scores[0, 9] and scores[1, 9] > scores[1, 4]
    model.export(tmp_path / "model")
    assert json.loads((tmp_path / "model/recommender.json").read_text())["cold_items"] is True
    plain = create("sequential", {**QUICK, "epochs": 2}).fit(data).score(Histories.of([[1, 2]]))
    assert plain[0, 4] == plain[0, 9] == plain.min()
    with pytest.raises(DataError, match="no item has brand; leave it out of"):
        create("sequential", {"features": ["brand"]}).fit(data)
    with pytest.raises(ConfigError, match="features"):
        create("sequential", {"features": ["colour"]})


@pytest.mark.parametrize("loss", ["cross_entropy", "gbce", "sampled_softmax"])
def test_new_items_are_not_behind_all_others_of_their_category(loss: str) -> None:
    names = {kind: [f"{kind}{n:02d}" for n in range(20)] for kind in "ab"}
    items = [Item(name, category=kind) for kind in "ab" for name in names[kind]]
    random = np.random.default_rng(1)
    events = [
        Event(f"u{user:03d}", names["ab"[user % 2]][random.integers(15)], "buy", T + step)
        for user in range(80)
        for step in range(6)
    ]
    options = {**QUICK, "epochs": 20, "features": ["category"], "loss": loss, "negatives": 16}
    scores = create("sequential", options).fit(Interactions.of(items, events)).score(Histories.of([[1, 2], [21, 22]]))
    own = np.stack([scores[0, :20], scores[1, 20:]])
    ranks = 1 + np.argsort(np.argsort(-own, axis=1), axis=1)
    assert ranks[:, 15:].mean() < 16  # the five new ones of twenty: 10.5 by chance, 18 at the end


def test_titles_are_seen_and_an_id_that_stands_in_for_one_is_none() -> None:
    items = [
        Item("a", title="猫粮 鸡肉味"),
        Item("b", title="猫粮 三文鱼味"),
        Item("c", title="c"),
        Item("d", title="纸尿裤"),
    ]
    data = Interactions.of(items, [Event("u", name, "buy", T + place) for place, name in enumerate("abd")])
    table = ItemTable.of(data.items, np.ones(4, dtype=bool), ["title"], 4, 0.0, "embedded")
    assert table.text.any(dim=1).tolist() == [True, True, False, True]
    with pytest.raises(DataError, match=r"no item has title; .*data\.items"):
        create("sequential", {**QUICK, "features": ["title"]}).fit(CYCLES)


def test_properties_of_an_item_share_its_weight() -> None:
    items = [Item("a", category="k", attributes="p|q"), Item("b"), Item("c", attributes="q")]
    table = Interactions.of(items, []).items
    found = Properties(table, ["category", "attributes"])
    assert (found.n_values, found.places.tolist(), found.offsets.tolist()) == (3, [0, 1, 2, 2], [0, 3, 3])
    assert found.weights.tolist() == [1.0, 0.5, 0.5, 1.0]
    vectors = ItemTable(np.array([True, False, True]), found, None, 4, 0.0)
    rows = vectors()
    assert rows.shape == (4, 4) and not rows[0].any() and not rows[2].any()
    torch.testing.assert_close(rows[3], vectors.own.weight[3] + vectors.values.weight[2])  # type: ignore[union-attr]


# --- public sets


def rows_of(users: int) -> list[list[int]]:
    return [[1 + (user * 7 + step) % 40 for step in range(5 + user % 4)] for user in range(users)]


def write_public(root: Path) -> None:
    """Write a slice of every set in its own format."""
    rows = rows_of(40)
    lines = {
        "ml1m_gsasrec/train/input.txt": [row[:-3] for row in rows],
        "ml1m_gsasrec/val/input.txt": [row[:-2] for row in rows],
        "ml1m_gsasrec/val/output.txt": [[row[-2]] for row in rows],
        "ml1m_gsasrec/test/output.txt": [[row[-1]] for row in rows],
        "s3rec_amazon/Beauty.txt": [[user, *row] for user, row in enumerate(rows, 1)],
    }
    lines["s3rec_amazon/Toys_and_Games.txt"] = lines["s3rec_amazon/Beauty.txt"]
    text = {name: "".join(" ".join(map(str, row)) + "\n" for row in found) for name, found in lines.items()}
    described = json.dumps({str(item): [item % 5, 9] for item in range(1, 41)})
    text |= {f"s3rec_amazon/{name}_item2attributes.json": described for name in ("Beauty", "Toys_and_Games")}
    text["gcegnn_Tmall/all_train_seq.jsonl"] = "".join(json.dumps({"session": row}) + "\n" for row in rows)
    text["gcegnn_Tmall/test.jsonl"] = "".join(json.dumps({"session": row[:-1], "next": row[-1]}) + "\n" for row in rows)
    for name, content in text.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize("config", ["ml1m", "beauty", "toys", "tmall"])
def test_the_config_of_a_public_set_trains_on_a_slice(
    config: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_public(project / "public")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(project / "public"))
    small = ["epochs=2", "dimensions=8", "negatives=8", "judge_every=1"]
    outcome = run_recipe(
        project / f"configs/public_{config}.yaml", ("threads=1", *(f"model.options.{option}" for option in small))
    )
    evidence = evidence_of(run_of(outcome.run_id))
    evaluation = json.loads((evidence / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["rows"] == 40 and evaluation["chosen"]["stop_after"] in (1, 2)
    assert [epoch for epoch, _ in evaluation["validation_curve"]] == [1, 2]
    assert evaluation["exclude_history"] is (config != "tmall")
    assert not list((project / "outputs/work").glob("*"))
