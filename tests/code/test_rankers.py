"""A catalogue that is searched gives the answers of one that is scored whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aftersales.core.errors import ModelError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.corpora.synthetic_interactions import generate
from aftersales.recommenders import Recommender, create
from aftersales.recommenders.base import Recommender as Base
from aftersales.recommenders.export import check_export
from aftersales.recommenders.factorised import Factorised
from aftersales.recommenders.popularity import PopularityConfig
from aftersales.runtime.events import PastEvent
from aftersales.runtime.filters import Filters
from aftersales.runtime.manifest import seal
from aftersales.runtime.rankers import FALLBACK, ScoreRanker, StateRanker, best_of, open_ranker
from aftersales.runtime.recommender import Recommender as Served
from aftersales.runtime.retrieval import FILE

OPTIONS: dict[str, dict[str, Any]] = {
    "sequential": {"epochs": 1, "dimensions": 16, "blocks": 1, "max_length": 8},
    "sequential, one length": {"epochs": 1, "dimensions": 16, "blocks": 1, "max_length": 8, "temperature": 0.1},
    "ials": {"factors": 8, "iterations": 3},
}


class Whole(Factorised):
    """States and vectors of small whole numbers, so that equal scores are exactly equal in any arithmetic."""

    items: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("items", torch.randint(-2, 3, (n_items, 4)).float())

    def state(self, history: Tensor, kinds: Tensor, ages: Tensor) -> Tensor:
        last = history[:, -1:].float()
        return torch.cat([last % 3, last % 2 - 1, last * 0 + 1, last % 5 - 2], dim=1)

    def vectors(self) -> Tensor:
        return self.items


class WholeRecommender(Base[PopularityConfig]):
    name = "whole"
    config_type = PopularityConfig

    def _fit(self, train: Interactions) -> Whole:
        return Whole(train.n_items)


def both(model: Base[Any], folder: Path) -> tuple[Served, Served]:
    """Export a model to be scored whole and to be searched."""
    for name, large in (("scored", 10**9), ("searched", 0)):
        model.export(folder / name, large)
        seal(folder / name, "recommender", "recommendation")
    return Served.load(folder / "scored"), Served.load(folder / "searched")


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    return generate(seed=3, users=60).only(["buy", "service"])


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest, interactions: Interactions) -> Recommender[Any]:
    return create(request.param.split(",")[0], OPTIONS[request.param]).fit(interactions)


@pytest.fixture(scope="module")
def pair(model: Recommender[Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Served, Served]:
    return both(model, tmp_path_factory.mktemp("models"))


HISTORIES: list[list[str | PastEvent]] = [
    ["P00003", "P00100"],
    [PastEvent("P00007", "buy", 3.0), PastEvent("P00011", "buy", 1.5)],
    ["S-exchange"],
    ["P01698"] * 30,
    ["gone"],
    [],
]
FILTERS = [
    Filters(),
    Filters(kind="service"),
    Filters(kind="product", categories=["食品生鲜", "手机通讯"], exclude_seen=True),
    Filters(price_max=50.0, exclude_items=["P00100"]),
]


@pytest.mark.parametrize("k", [1, 10, 500, 5000])
def test_the_same_items_in_the_same_order(pair: tuple[Served, Served], k: int) -> None:
    scored, searched = pair
    assert isinstance(scored._ranker, ScoreRanker) and isinstance(searched._ranker, StateRanker)
    filters = [one for one in FILTERS if set(one.categories or ()) <= set(scored.items.categories.words)]
    for history in HISTORIES:
        for one in filters:
            expected, found = (model.recommend(history, k, one) for model in pair)
            scores = np.array([item.score for item in expected.items])
            np.testing.assert_allclose([item.score for item in found.items], scores, atol=1e-5, rtol=1e-5)
            # Scores that 32-bit arithmetic does not tell apart may change places.
            apart = np.abs(np.diff(scores, prepend=np.inf, append=scores[-1:])) > 1e-5 * (
                1 + np.abs(scores).max(initial=0)
            )
            for place in np.flatnonzero(apart[:-1] & apart[1:]):
                assert found.items[place].item_id == expected.items[place].item_id
            assert len(found.items) == len(expected.items)
            assert found.reason == expected.reason and found.unknown == expected.unknown


def test_the_export_check_holds_for_both(
    model: Recommender[Any], pair: tuple[Served, Served], interactions: Interactions, tmp_path: Path
) -> None:
    histories = Histories.of([[5], [1, 2, 3], [], [7] * 3 + list(range(1, 40)), [interactions.n_items]])
    both(model, tmp_path)
    for name in ("scored", "searched"):
        check_export(tmp_path / name, histories, model.score(histories))


def test_the_export_check_does_not_pass_what_is_no_number(interactions: Interactions, tmp_path: Path) -> None:
    model, histories = create("popularity").fit(interactions), Histories.of([[5], []])
    both(model, tmp_path)
    for scores in (np.full_like(model.score(histories), np.nan), model.score(histories) + 1):
        with pytest.raises(ModelError, match="gives other scores than the trained one"):
            check_export(tmp_path / "scored", histories, scores)


def test_ties_and_items_that_cannot_be_ranked_keep_the_order_of_the_catalogue(tmp_path: Path) -> None:
    items = [Item(f"P{number:04d}") for number in range(3000)]
    sold = [Event("u", f"P{number:04d}", "buy", number) for number in range(0, 3000, 2)]
    pair = both(WholeRecommender(PopularityConfig()).fit(Interactions.of(items, sold)), tmp_path)
    few = np.zeros(3000, dtype=bool)
    few[[0, 1, 2, 3, 4, 5, 2998, 2999]] = True
    for last in range(20):
        for k in (1, 7, 100, 2000, 4000):
            for among in (None, few, np.arange(3000) % 7 > 0):
                inputs = pair[0].inputs([f"P{last:04d}"])
                expected, found = (one._ranker.best(inputs, k, among) for one in pair)
                np.testing.assert_array_equal(found.items, expected.items)
                np.testing.assert_array_equal(found.scores, expected.scores)


def test_best_of_is_a_stable_sort() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.integers(-3, 3, 40).astype(np.float32)
        shown = rng.random(40) < 0.5
        places = np.flatnonzero(shown)
        expected = places[np.argsort(-scores[places], kind="stable")[:7]]
        assert best_of(scores, 7, shown).items.tolist() == expected.tolist()
    assert best_of(scores, 7, np.zeros(40, dtype=bool)).items.tolist() == []


def test_parts_that_are_missing_or_do_not_fit_are_named(pair: tuple[Served, Served], tmp_path: Path) -> None:
    items = [Item(f"P{number:04d}") for number in range(8)]
    model = WholeRecommender(PopularityConfig()).fit(Interactions.of(items, [Event("u", "P0001", "buy", 1)]))
    model.export(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state.onnx",
        FILE,
        FALLBACK,
        "items.json",
        "recommender.json",
    }
    (tmp_path / FALLBACK).rename(tmp_path / "away")
    with pytest.raises(ModelError, match=f"{FALLBACK} cannot be read"):
        open_ranker(tmp_path, 1)
    (tmp_path / "away").rename(tmp_path / FALLBACK)
    fewer = WholeRecommender(PopularityConfig()).fit(Interactions.of(items[:5], [Event("u", "P0001", "buy", 1)]))
    fewer.export(tmp_path / "fewer", 0)
    (tmp_path / "fewer" / FALLBACK).rename(tmp_path / FALLBACK)
    with pytest.raises(ModelError, match="do not fit"):
        open_ranker(tmp_path, 1)
