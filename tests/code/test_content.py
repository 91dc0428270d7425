"""What is particular to the content recommender, and the vectors of item texts."""

import numpy as np
import pytest

from aftersales.core.errors import DataError
from aftersales.corpora.histories import Histories
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.recommenders import create
from aftersales.recommenders.content import ContentConfig, item_vectors
from aftersales.recommenders.item_text import text_vectors, whitened

T = 1_735_689_600
TITLES = [
    "乐途星 防摔手机壳 黑色",
    "乐途星 防摔手机壳 白色",
    "婴儿纸尿裤 L码",
    "婴儿纸尿裤 XL码",
    "猫粮 鸡肉味 2kg",
    "猫粮 三文鱼味 2kg",
]
ITEMS = [Item(f"i{number}", title) for number, title in enumerate(TITLES)]
# Nobody has bought the second of each pair.
DATA = Interactions.of(ITEMS, [Event("u", f"i{number}", "buy", T + number) for number in (0, 2, 4)])
NGRAMS = {"ngrams": 1.0, "dimensions": 3}


@pytest.mark.parametrize("options", [NGRAMS, {"ngrams": 0.0, "dimensions": 3}, {"dimensions": 3}])
def test_an_item_that_nobody_has_bought_is_found_by_its_text(options: dict[str, float]) -> None:
    model = create("content", options).fit(DATA)
    assert model.cold_items
    scores = model.score(Histories.of([[1], [3], [5]]))
    assert np.argsort(-scores, axis=1)[:, :2].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_recent_items_weigh_more_and_an_item_itself_as_much_as_is_said() -> None:
    vectors = item_vectors(DATA.items, ContentConfig(ngrams=1.0, dimensions=3))
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, atol=1e-6)
    similar = vectors @ vectors.T
    histories = Histories.of([[1, 3, 3]])
    scores = create("content", {**NGRAMS, "half_life": 2.0}).fit(DATA).score(histories)[0]
    np.testing.assert_allclose(scores, 0.5 * similar[0] + similar[2], atol=1e-5)
    without = create("content", {**NGRAMS, "half_life": 2.0, "repeat": 0.0}).fit(DATA).score(histories)[0]
    np.testing.assert_allclose(scores - without, [0.5, 0, 1, 0, 0, 0], atol=1e-5)


def test_a_catalogue_without_texts_is_refused_and_an_item_without_one_is_like_no_other() -> None:
    events = [Event("u", "i0", "buy", T)]
    with pytest.raises(DataError, match=r"to compare; give them with data\.items, or take another model"):
        create("content", NGRAMS).fit(Interactions.of([Item("i0", title="i0"), Item("i1")], events))
    some = Interactions.of([*ITEMS, Item("blank", title="blank")], events)
    assert not item_vectors(some.items, ContentConfig(ngrams=0.5, dimensions=4))[-1].any()


def test_texts_become_vectors_in_their_own_order() -> None:
    together = text_vectors([*TITLES, TITLES[0]], "embedded")
    assert together.shape[0] == 7 and (together[0] == together[6]).all()
    np.testing.assert_allclose(together[2], text_vectors([TITLES[2]], "embedded")[0], atol=1e-4)


def test_whitened_vectors_are_of_length_one_and_differ_in_all_directions() -> None:
    random = np.random.default_rng(0)
    crowded = (random.normal(size=(200, 6)) * [9, 3, 1, 0.5, 0.1, 1e-6] + 5).astype(np.float32)
    found = whitened(crowded, 10)
    assert found.shape == (200, 5)  # the last direction is noise
    np.testing.assert_allclose((found**2).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.T @ found / 200, np.eye(5) / 5, atol=0.06)
    assert whitened(crowded, 2).shape == (200, 2)
    centred = crowded - crowded.mean(axis=0)
    alike = whitened(crowded, 6, strength=0.0) @ whitened(crowded, 6, strength=0.0).T
    length = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(alike, centred @ centred.T / np.outer(length, length), atol=1e-3)
    assert not whitened(np.ones((3, 4), dtype=np.float32), 2).any()
