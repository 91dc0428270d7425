"""What lists are like, warm and cold apart, and intervals over users and seeds, against values worked out by hand."""

import math

import numpy as np
import pytest

from aftersales.core.errors import DataError
from aftersales.corpora.histories import Histories, Holdout
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.list_metrics import ItemFacts, list_figures
from aftersales.evaluation.ranking import Ranking
from aftersales.evaluation.ranking_comparison import over_seeds, warm_and_cold

T = 1_735_689_600
BOUGHT = {"u": ["a", "a", "b"], "v": ["a", "b"], "w": ["a", "c"], "x": ["d"]}


def shop(categories: dict[str, str]) -> Interactions:
    items = [Item(name, category=category) for name, category in categories.items()]
    return Interactions.of(items, [Event(user, i, "buy", T) for user, row in BOUGHT.items() for i in row])


SHOP = shop({"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"})
LISTS = np.array([[1, 2, 3], [5, 4, 0], [0, 0, 0], [3, 0, 0]])


def figure(name: str, data: Interactions = SHOP, lists: np.ndarray = LISTS) -> float:
    return list_figures(lists, np.array([1, 4]), ItemFacts.of(data), (1, 2, 3))[name]


def test_novelty_is_self_information_in_bits() -> None:
    a, b, one = -math.log2(3 / 4), 1.0, 2.0  # of four users three, two and one have the item; nobody counts like one
    assert figure("novelty@1") == pytest.approx((a + one + one) / 3)
    assert figure("novelty@3") == pytest.approx(((a + b + one) / 3 + one + one) / 3)


def test_diversity_by_category_and_by_co_occurrence() -> None:
    assert figure("diversity@2") == pytest.approx(1 - (1 + 0) / 2)  # a and b alike, e and d not; one item has no pair
    assert figure("diversity@3") == pytest.approx(1 - (1 / 3 + 0) / 2)
    without = shop(dict.fromkeys("abcde", ""))
    ab, ac, bc = 2 / 6**0.5, 1 / 3**0.5, 0
    assert figure("diversity@2", without) == pytest.approx(1 - (ab + 0) / 2)
    assert figure("diversity@3", without) == pytest.approx(1 - ((ab + ac + bc) / 3 + 0) / 2)
    assert math.isnan(figure("diversity@1"))  # no list of one item has a pair


def test_lists_of_many_users_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_figures(LISTS, np.array([1, 4]), ItemFacts.of(SHOP), (1, 2, 3))
    similarity, users = ItemFacts.similarity, []

    def counting(facts: ItemFacts, lists: np.ndarray) -> np.ndarray:
        users.append(len(lists))
        return similarity(facts, lists)

    monkeypatch.setattr(ItemFacts, "similarity", counting)
    monkeypatch.setattr("aftersales.evaluation.list_metrics.USERS_AT_ONCE", 3)
    assert list_figures(LISTS, np.array([1, 4]), ItemFacts.of(SHOP), (1, 2, 3)) == pytest.approx(whole, nan_ok=True)
    assert users == [3, 1]


def test_popularity_of_what_is_shown_against_what_is_bought() -> None:
    place = {"a": 0.9, "b": 0.7, "c": 0.4, "d": 0.4, "e": 0.1}  # four, two, one, one and no events
    assert figure("popularity@1") == pytest.approx((place["a"] + place["e"] + place["c"]) / 3)
    shown = ((place["a"] + place["b"]) / 2 + (place["e"] + place["d"]) / 2 + place["c"]) / 3
    assert figure("popularity@2") == pytest.approx(shown)
    assert figure("popularity_bias@2") == pytest.approx(shown - (place["a"] + place["d"]) / 2)


def test_cold_and_warm_users_and_items_apart() -> None:
    train = Interactions.of(
        [Item("rare"), Item("known")],
        [Event(f"u{n}", "known", "buy", T) for n in range(5)] + [Event("u", "rare", "buy", T)],
    )
    histories = Histories.of([[2] * 4, [2] * 5, [2] * 6])
    holdout = Holdout(histories, np.array([2, 1, 2, 2]), np.array([0, 1, 3, 4]))
    ranking = Ranking(np.array([1, 7, 2, 12]), {10: 1.0}, np.zeros((3, 10), dtype=np.int64), holdout.offsets)
    groups = warm_and_cold(ranking, holdout, train)
    assert {name: found["targets"] for name, found in groups.items()} == {
        "cold users": 1, "warm users": 3, "cold items": 1, "warm items": 3
    }  # fmt: skip
    assert groups["cold users"]["mrr@10"] == 1 and groups["warm users"]["mrr@10"] == (1 / 2 + 0) / 2
    assert groups["cold items"]["mrr@10"] == 1 / 7 and groups["warm items"]["mrr@10"] == (1 + 1 / 2 + 0) / 3
    assert groups["warm users"]["recall@10"] == (1 + 0) / 2
    one = Holdout(histories, np.array([2, 2, 2]))
    assert "cold items" not in warm_and_cold(Ranking(ranking.ranks[:3], {10: 1.0}, ranking.lists), one, train)


def rankings(*ranks: list[int]) -> list[Ranking]:
    return [Ranking(np.array(one), {10: 1.0}, np.zeros((len(one), 10), dtype=np.int64)) for one in ranks]


def test_one_training_is_the_paired_bootstrap_over_users() -> None:
    random = np.random.default_rng(0)
    floor = random.integers(1, 30, size=300)
    (ours, theirs) = rankings(np.maximum(floor - 2, 1).tolist(), floor.tolist())
    found, over = over_seeds(["mrr@10", "hr@10"], [ours], [theirs])["hr@10"]
    a, b = ours.values("hr@10"), theirs.values("hr@10")
    assert (found.value, over.value) == pytest.approx((a.mean(), a.mean() - b.mean()))
    assert (found.low, found.high) == pytest.approx(bootstrap_interval(a))
    assert (over.low, over.high) == pytest.approx(bootstrap_interval(a - b)) and over.significant
    unpaired = bootstrap_interval(a, seed=1)[0] - bootstrap_interval(b, seed=2)[1]
    assert over.low > unpaired  # pairing takes out what both owe to the users
    assert over_seeds(["hr@10"], [ours], [ours])["hr@10"][1].low == 0


def test_several_trainings_widen_the_interval_where_they_differ() -> None:
    good, bad, floor = [1] * 100 + [20] * 100, [1] * 50 + [20] * 150, [20] * 200
    same = over_seeds(["hr@10"], rankings(good, good), rankings(floor, floor))["hr@10"][0]
    mixed = over_seeds(["hr@10"], rankings(good, bad), rankings(floor, floor))["hr@10"][0]
    assert same.value == 0.5 and mixed.value == 0.375
    assert mixed.high - mixed.low > 1.5 * (same.high - same.low)
    with pytest.raises(DataError, match="2 rankings and 1 floors"):
        over_seeds(["hr@10"], rankings(good, bad), rankings(floor))
    with pytest.raises(DataError, match="different users"):
        over_seeds(["hr@10"], rankings(good), rankings(floor[1:]))
