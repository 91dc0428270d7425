"""What is particular to the recommenders with a closed form: popularity, item-kNN, EASE and iALS."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.corpora.synthetic_interactions import generate
from aftersales.recommenders import create
from aftersales.recommenders.ease import item_weights
from aftersales.recommenders.history import latest
from aftersales.recommenders.ials import FoldIn, IalsConfig, item_factors
from aftersales.recommenders.item_knn import ItemKnnConfig, nearest_items

T, DAY = 1_735_689_600, 86_400
ROWS = [[1, 2, 2], [1, 3], [3, 2, 1], [2], [4, 1, 4, 4]]


def bought(rows: list[list[int]], n_items: int) -> Interactions:
    items = [Item(f"i{number}") for number in range(1, n_items + 1)]
    events = [Event(f"u{u:03d}", f"i{i}", "buy", T + step) for u, row in enumerate(rows) for step, i in enumerate(row)]
    return Interactions.of(items, events)


def random_rows(users: int, n_items: int, seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    taste = random.dirichlet(np.full(n_items, 0.3), size=4)
    return [random.choice(n_items, size=random.integers(2, 9), p=taste[u % 4]).tolist() for u in range(users)]


def test_latest_keeps_the_last_of_each_item_and_its_age() -> None:
    item, age = latest(torch.tensor([[0, 3, 1, 3], [2, 2, 2, 2], [0, 0, 0, 5]]))
    found = [
        sorted((int(i), int(a)) for i, a in zip(*row, strict=True) if i > 0) for row in zip(item, age, strict=True)
    ]
    assert found == [[(1, 1), (3, 0)], [(2, 0)], [(5, 0)]]


# --- popularity


def popular(options: dict[str, Any], days: dict[str, list[float]]) -> list[float]:
    events = [Event("u", name, "buy", T + int(day * DAY)) for name, on in days.items() for day in on]
    model = create("popularity", options).fit(Interactions.of([Item(name) for name in days], events))
    known, unknown = model.score(Histories.of([[1], []])).tolist()
    assert known == unknown  # popularity is what an unknown user gets too
    return known


def test_recent_popularity_counts_recent_events() -> None:
    days = {"old": [0, 0, 1], "new": [40]}
    assert popular({}, days) == [3, 1]
    assert popular({"recent_days": 30}, days) == [0, 1]


def test_decayed_popularity_halves_with_age() -> None:
    days = {"old": [0, 0, 10], "new": [20]}
    assert popular({"half_life_days": 10}, days) == [0.25 + 0.25 + 0.5, 1]
    assert popular({"half_life_days": 10, "recent_days": 15}, days) == [0.5, 1]


def test_recency_needs_times() -> None:
    data = bought(ROWS, 4)
    untimed = Interactions.of_tables(data.items, data.events, timed=False)
    for options in ({"recent_days": 3.0}, {"half_life_days": 3.0}):
        with pytest.raises(DataError, match="no times; leave out recent_days"):
            create("popularity", options).fit(untimed.only(["buy"]))
        with pytest.raises(ConfigError, match="greater than 0"):
            create("popularity", dict.fromkeys(options, 0))
    assert create("popularity").fit(untimed).score(Histories.of([[1]])).tolist() == [[4, 4, 2, 3]]


# --- item-kNN


def similarity_by_loops(rows: list[list[int]], n_items: int, weighting: str, shrinkage: float) -> np.ndarray:
    """The definitions, item by item and user by user."""
    n = np.array([[row.count(item) for item in range(1, n_items + 1)] for row in rows], dtype=float)
    seen = n > 0
    rare = np.array([np.log((1 + n_items) / (1 + user.sum())) + 1 for user in seen])
    length = n.sum(axis=0) / n.sum(axis=0).mean()
    vectors = {
        "cosine": lambda i: seen[:, i] * 1.0,
        "tfidf": lambda i: np.sqrt(n[:, i]) * rare,
        "bm25": lambda i: rare * n[:, i] * 2.2 / (n[:, i] + 1.2 * (0.25 + 0.75 * length[i])),
    }[weighting]
    result = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            a, b, common = vectors(i), vectors(j), (seen[:, i] & seen[:, j]).sum()
            if i != j and common:
                norm = 1.0 if weighting == "bm25" else np.linalg.norm(a) * np.linalg.norm(b)
                result[i, j] = a @ b / norm * common / (common + shrinkage)
    return result


def test_cosine_with_shrinkage_by_hand() -> None:
    indices, values = nearest_items(Histories.of(ROWS), 4, ItemKnnConfig(shrinkage=2, neighbours=2))
    # Item 1 has four users, item 2 three and item 3 two; 1 and 2 share two, 1 and 3 two, 1 and 4 one.
    assert indices[1].tolist() == [3, 2]
    assert values[1] == pytest.approx([2 / 8**0.5 * 2 / 4, 2 / 12**0.5 * 2 / 4])
    assert indices[0].tolist() == [0, 0] and values[0].tolist() == [0, 0]
    assert indices[4].tolist() == [1, 0] and values[4] == pytest.approx([1 / 2 * 1 / 3, 0])


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_neighbours_are_those_of_the_definition(
    weighting: str, shrinkage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aftersales.recommenders.item_knn.ITEMS_AT_ONCE", 7)
    rows = [[item + 1 for item in row] for row in random_rows(80, 20, seed=1)]
    expected = similarity_by_loops(rows, 20, weighting, shrinkage)
    config = ItemKnnConfig(weighting=weighting, shrinkage=shrinkage, neighbours=5)  # type: ignore[arg-type]
    indices, values = nearest_items(Histories.of(rows), 20, config)
    for item in range(20):
        np.testing.assert_allclose(values[item + 1], np.sort(expected[item])[::-1][:5])
        found = indices[item + 1][values[item + 1] > 0] - 1
        np.testing.assert_allclose(expected[item, found], values[item + 1][: len(found)])


def test_item_knn_adds_similarities_up_and_orders_the_rest_by_popularity() -> None:
    rows = [[1, 2]] * 3 + [[1, 3]] + [[4, 5]] * 2 + [[5, 6]]
    model = create("item_knn", {"shrinkage": 0}).fit(bought(rows, 6))
    scores = model.score(Histories.of([[1, 1], [2, 3]]))
    assert scores[0] == pytest.approx([0, 3 / 12**0.5, 1 / 2, 0, 0, 0], abs=1e-5)
    assert scores[1] == pytest.approx([3 / 12**0.5 + 1 / 2, 0, 0, 0, 0, 0], abs=1e-5)
    assert np.argsort(-scores[0]).tolist()[:2] == [1, 2] and 0 >= scores[0][4] > scores[0][3] > scores[0][5]


def test_a_neighbour_of_long_ago_still_comes_before_a_bestseller() -> None:
    rows = [[1, 2]] + [[3, 4]] * 5 + [[5]] * 50
    model = create("item_knn", {"shrinkage": 0.0, "half_life": 5.0}).fit(bought(rows, 5))
    scores = model.score(Histories.of([[1, *[3] * 400]]))[0]
    assert np.argsort(-scores).tolist() == [3, 1, 4, 2, 0]  # 5 is no neighbour; nor are 3 and 1 of themselves


def test_half_life_and_repeat_of_item_knn() -> None:
    rows = [[1, 2], [3, 4]]
    options = {"shrinkage": 0.0, "half_life": 2.0, "repeat": 0.5}
    scores = create("item_knn", options).fit(bought(rows, 4)).score(Histories.of([[1, 3, 3], [3, 1, 3]]))
    assert scores[0] == pytest.approx([0.5 * 0.5, 0.5, 0.5, 1], abs=1e-5)
    assert scores[1] == pytest.approx([0.5 * 0.5**0.5, 0.5**0.5, 0.5, 1], abs=1e-5)


# --- EASE


def test_ease_is_the_closed_form() -> None:
    seen = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]], dtype=float)
    weights = item_weights(Histories.of([[1, 2, 2], [1, 3], [3, 2, 1], [2]]), 3, l2=0.5).numpy()
    assert np.diag(weights).tolist() == [0, 0, 0]
    for column in range(3):  # ridge regression of each item on the two others
        others = [item for item in range(3) if item != column]
        x, y = seen[:, others], seen[:, column]
        np.testing.assert_allclose(weights[others, column], np.linalg.solve(x.T @ x + 0.5 * np.eye(2), x.T @ y))


@pytest.mark.parametrize("many_items", [3, 5000])
def test_ease_adds_weights_up_and_recent_items_weigh_more(many_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aftersales.recommenders.ease.MANY_ITEMS", many_items)
    data = bought(ROWS, 4)
    weights = item_weights(data.histories(), 4, l2=1.0).numpy()
    histories = Histories.of([[1, 3, 3], [3, 1, 4, 1]])
    plain = create("ease", {"l2": 1.0}).fit(data).score(histories)
    np.testing.assert_allclose(plain, [weights[0] + weights[2], weights[2] + weights[0] + weights[3]], atol=1e-6)
    recent = create("ease", {"l2": 1.0, "half_life": 2.0}).fit(data).score(histories)
    expected = [0.5 * weights[0] + weights[2], 0.5**1.5 * weights[2] + weights[0] + 0.5**0.5 * weights[3]]
    np.testing.assert_allclose(recent, expected, atol=1e-6)


def test_ease_refuses_a_catalogue_that_memory_cannot_hold() -> None:
    data = bought([[1, 2]], 2000)
    with pytest.raises(ConfigError, match=r"needs 0\.1 GB for 2,000 items and memory_gb allows 0\.05; take item_knn"):
        create("ease", {"memory_gb": 0.05}).fit(data)
    create("ease", {"memory_gb": 0.07}).fit(data)


# --- iALS


@pytest.fixture(scope="module")
def factorised() -> Any:
    """The ``implicit`` library's own model, fitted as ours is."""
    from implicit.cpu.als import AlternatingLeastSquares

    def fit(seen: csr_matrix, config: IalsConfig) -> AlternatingLeastSquares:
        model = AlternatingLeastSquares(
            config.factors, config.l2, config.confidence, iterations=config.iterations, random_state=config.seed
        )
        model.fit(seen, show_progress=False)
        return model

    return fit


@pytest.mark.parametrize("confidence", [1.0, 20.0, 300.0])
def test_folded_in_users_are_those_of_the_library(confidence: float, factorised: Any) -> None:
    train = generate(seed=2, users=150).only(["buy"])
    config = IalsConfig(factors=24, confidence=confidence, l2=0.5, iterations=4)
    model = create("ials", config.model_dump()).fit(train)
    histories = Histories.of([[5], [1, 2, 3], [7, 7, 9], list(range(1, 200))])
    theirs = factorised(matrix(train.histories(), train.n_items), config)
    users = theirs.recalculate_user(np.arange(len(histories)), matrix(histories, train.n_items))
    expected = users @ theirs.item_factors.T
    known = np.isin(np.arange(train.n_items), train.item_index - 1)
    np.testing.assert_allclose(model.score(histories)[:, known], expected[:, known], atol=3e-4)
    assert np.abs(expected).max() > 0.3


def matrix(histories: Histories, n_items: int) -> csr_matrix:
    dense = np.zeros((len(histories), n_items), dtype=np.float32)
    dense[histories.rows, histories.items - 1] = 1
    return csr_matrix(dense)


def test_the_steps_that_are_foreseen_are_enough_and_not_many_more() -> None:
    # Items at right angles, so that the system of a user who has them all has eigenvalues all over 1 to 200.
    known = np.linspace(0.001, 0.999, 150)
    graph = FoldIn(np.diag(np.sqrt(known / (1 - known))).astype(np.float32), l2=1.0, confidence=200.0)
    history = torch.arange(1, 151)[None]
    exact = 200 * known / (1 + 199 * known)

    def error(steps: int) -> float:
        graph.steps = steps
        return float(np.linalg.norm(graph(history)[0].numpy() - exact) / np.linalg.norm(exact))

    foreseen = graph.steps
    assert error(foreseen) < 1e-5 and error(foreseen // 3) > 1e-4


def test_factors_of_items_without_events_are_zero() -> None:
    found = item_factors(matrix(Histories.of(ROWS), 6), IalsConfig(factors=3))
    assert found.shape == (6, 3) and not found[4:].any() and found[:4].any(axis=1).all()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ease", {"l2": 1e-30}, r"model\.options\.l2=1e-30 is lost beside the counts"),
        ("ials", {"l2": 1e-30, "factors": 8}, r"model\.options\.l2=1e-30 is lost beside the factors; take a value"),
        ("ials", {"l2": 1e30}, r"NaN .*: model\.options\.l2=1e\+30 does not suit these; take a value"),
        ("ials", {"confidence": 1e12}, "'confidence': .*less than or equal to 1000"),
    ],
)
def test_options_beyond_what_numbers_hold_are_named(name: str, options: dict[str, float], said: str) -> None:
    events = [Event(user, item, "buy", 1_700_000_000 + place) for user in "uv" for place, item in enumerate("abc")]
    with pytest.raises(ConfigError, match=said):
        create(name, options).fit(Interactions.of([Item(name) for name in "abc"], events))
