"""The search for the best items answers as brute force does, whatever the vectors, filters, ties and threads."""

import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aftersales.core.errors import ConfigError, DataError, ModelError
from aftersales.runtime import integer_product, retrieval
from aftersales.runtime.integer_product import IntegerProduct, factor_limit
from aftersales.runtime.manifest import seal, verify
from aftersales.runtime.retrieval import FILE, ItemIndex

ROWS = 64  # of a block in most tests, so that a thousand items make many


def gauss(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def few_equal(rng, n, d):
    return gauss(rng, 5, d)[rng.integers(0, 5, n)]


def outliers(rng, n, d):
    items = lognormal(rng, n, d)
    items[rng.integers(0, n, 3)] *= 1000
    return items


def lognormal(rng, n, d):
    return gauss(rng, n, d) * rng.lognormal(0, 1, (n, 1)).astype(np.float32)


def of_one_length(rng, n, d):
    items = gauss(rng, n, d)
    return items / np.linalg.norm(items, axis=1, keepdims=True)


def large_dimension(rng, n, d):
    items = gauss(rng, n, d)
    items[:, 0] *= 1e4
    return items


def tiny(rng, n, d):
    return gauss(rng, n, d) * np.float32(1e-39)


def huge_range(rng, n, d):
    return gauss(rng, n, d) * (10.0 ** rng.uniform(-30, 12, (n, 1))).astype(np.float32)


def opposed(rng, n, d):
    """Every score is about minus one and nothing tells items apart but the last bits."""
    return np.float32(-1) + gauss(rng, n, d) * np.float32(1e-6)


def half_zero(rng, n, d):
    return gauss(rng, n, d) * (rng.random((n, 1)) < 0.5).astype(np.float32)


VECTORS = {
    made.__name__: made
    for made in (
        gauss, few_equal, outliers, lognormal, of_one_length, large_dimension, tiny, huge_range, opposed, half_zero
    )
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, request):
    if "whole_blocks" in request.fixturenames:
        return
    monkeypatch.setattr(retrieval, "_FEW", 3)
    monkeypatch.setattr(retrieval, "_FIRST", 4)
    monkeypatch.setattr(retrieval, "_BLOCK", ROWS)  # a row of d numbers; new_index allows for d


@pytest.fixture
def whole_blocks():
    """Sizes as shipped."""


@pytest.fixture
def new_index(monkeypatch):
    def make(items, bias=None):
        monkeypatch.setattr(retrieval, "_BLOCK", ROWS * items.shape[1])
        return ItemIndex(items, bias)

    return make


def best(scores, k, mask):
    """Brute force: all that are allowed, sorted by falling score and then by index."""
    items = np.flatnonzero(mask)
    return items[np.lexsort((items, -scores[items]))[:k]]


def assert_best(index, query, k, allowed=None, excluded=()):
    mask = np.ones(index.n_items, dtype=bool) if allowed is None else allowed.copy()
    mask[list(excluded)] = False
    scores = index.scores(query)
    expected = best(scores, k, mask)
    before = None if allowed is None else allowed.copy()
    found = index.search(query, k, allowed, excluded)
    assert before is None or (allowed == before).all(), "the caller's mask is not written to"
    assert found.items.dtype == np.int64 and found.scores.dtype == np.float32
    assert found.items.tolist() == expected.tolist()
    assert found.scores.tobytes() == scores[expected].tobytes()


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("d", [1, 3, 64])
@pytest.mark.parametrize("kind", VECTORS)
def test_the_answer_is_that_of_brute_force(new_index, kind, d, biased):
    rng = np.random.default_rng([d, biased, *kind.encode()])
    items = VECTORS[kind](rng, 600, d)
    bias = lognormal(rng, 1, 600)[0] if biased else None
    index = new_index(items, bias)
    for query in (gauss(rng, d), items[17], np.float32(1e-3) * items[3], np.abs(gauss(rng, d)), np.eye(d)[-1]):
        order = np.argsort(index.scores(query))
        worst, scattered = np.zeros(600, dtype=bool), rng.random(600) < rng.random()
        worst[order[:200]] = True
        for k in (1, 30):
            assert_best(index, query, k)
            assert_best(index, query, k, scattered)
            assert_best(index, query, k, worst, excluded=rng.integers(0, 600, 9))
            assert_best(index, query, k, excluded=order[-20:])


@pytest.mark.parametrize("seed", range(20))
def test_small_whole_numbers_tie_exactly_and_are_known_without_the_index(new_index, seed):
    rng = np.random.default_rng(seed)
    n, d, k = rng.integers(1, 900), rng.integers(1, 40), rng.integers(1, 50)
    items, bias = rng.integers(-2, 3, (n, d)), rng.integers(-3, 4, n)
    index = new_index(items.astype(np.float32), bias.astype(np.float32))
    for _ in range(5):
        query, mask = rng.integers(-2, 3, d), rng.random(n) < 0.7
        scores = items @ query + bias
        expected = best(scores, k, mask)
        found = index.search(query, int(k), mask)
        assert (found.items.tolist(), found.scores.tolist()) == (expected.tolist(), scores[expected].tolist())


def test_scores_are_the_rounded_sum_of_exact_products(new_index):
    rng = np.random.default_rng(0)
    items, query, bias = gauss(rng, 300, 50), gauss(rng, 50), gauss(rng, 300)
    expected = [math.fsum([*(row.astype(float) * query), b]) for row, b in zip(items, bias.astype(float), strict=True)]
    scores = new_index(items, bias).scores(query)
    assert np.abs(scores - expected).max() <= 2.0**-24 * np.abs(expected).max()
    assert (scores == np.float32(expected)).mean() > 0.99


@pytest.mark.parametrize("d", [1, 2, 7, 8, 64, 129, 300])
def test_a_score_does_not_depend_on_what_is_scored_beside_it(new_index, d):
    rng = np.random.default_rng(d)
    items, query = gauss(rng, 200, d), gauss(rng, d)
    index = new_index(items)
    scores = index.scores(query)
    for count in (1, 2, 3, 57):
        some = rng.integers(0, 200, count)
        assert index.scores(query, some).tobytes() == scores[some].tobytes()
    assert new_index(np.asfortranarray(items)).scores(query).tobytes() == scores.tobytes()


@pytest.mark.parametrize("limit", [127, 63])
@pytest.mark.parametrize("kind", VECTORS)
def test_no_score_is_further_off_than_its_bound(new_index, monkeypatch, kind, limit):
    if limit < factor_limit():
        for module in (integer_product, retrieval):
            monkeypatch.setattr(module, "factor_limit", lambda: limit)
    rng = np.random.default_rng(limit)
    items, bias = VECTORS[kind](rng, 500, 24), gauss(rng, 500)
    for index in (new_index(items), new_index(items, bias)):
        for query in [index._query(row) for row in (*gauss(rng, 5, 24), items[3], np.eye(24)[2])]:
            for block in index._blocks:
                exact = index._exact(query.vector, np.arange(block.part.start, block.part.stop)).astype(float)
                assert exact.max() <= block.highest_score(query)
                assert np.abs(exact).max() <= block.largest_score(query)
                for scores, error in (
                    block.from_integers(block.product(query.rounded[None])[0], query),
                    block.from_floats(index._items[block.part], query),
                ):
                    assert np.abs(scores - exact).max() <= error


@pytest.mark.parametrize("limit", [63, 31])
def test_processors_that_saturate_get_the_same_answers(new_index, monkeypatch, limit):
    rng = np.random.default_rng(5)
    items, query = gauss(rng, 800, 16), gauss(rng, 16)
    expected = new_index(items).search(query, 20)
    for module in (integer_product, retrieval):
        monkeypatch.setattr(module, "factor_limit", lambda: limit)
    found = new_index(items).search(query, 20)
    assert found.items.tolist() == expected.items.tolist() and found.scores.tobytes() == expected.scores.tobytes()


def counted(monkeypatch, owner, name):
    """Note how many rows each call of a method of ``owner`` was given or made."""
    calls, method = [], getattr(owner, name)

    def note(self, *arguments):
        result = method(self, *arguments)
        calls.append(len(result[0]) if isinstance(result, tuple | np.ndarray) and np.ndim(result[0]) else len(result))
        return result

    monkeypatch.setattr(owner, name, note)
    return calls


def test_blocks_that_are_too_short_are_not_scored(new_index, monkeypatch):
    rng = np.random.default_rng(1)
    index = new_index(lognormal(rng, 6400, 32))
    products = counted(monkeypatch, IntegerProduct, "__call__")
    assert_best(index, gauss(rng, 32), 5)
    assert 1 <= len(products) < 50


@pytest.mark.parametrize("kind", ["gauss", "lognormal", "outliers", "of_one_length", "large_dimension"])
def test_few_items_are_scored_exactly(whole_blocks, monkeypatch, kind):
    rng = np.random.default_rng(2)
    index = ItemIndex(VECTORS[kind](rng, 60_000, 64))
    exact = counted(monkeypatch, ItemIndex, "_exact")
    for _ in range(3):
        index.search(gauss(rng, 64), 20)
    assert 60 <= sum(exact) < 3 * 2_000


def test_where_8_bits_say_nothing_32_do(new_index, monkeypatch):
    rng = np.random.default_rng(3)
    index = new_index(large_dimension(rng, 6400, 32))
    query = gauss(rng, 32)
    query[0] = 0
    floats, exact = counted(monkeypatch, retrieval._Block, "from_floats"), counted(monkeypatch, ItemIndex, "_exact")
    index.search(query, 5)
    assert floats and sum(exact) < 300
    assert_best(index, query, 5)


def test_degenerate_indexes_and_queries(new_index):
    rng = np.random.default_rng(4)
    empty = new_index(np.empty((0, 8), dtype=np.float32), np.empty(0, dtype=np.float32))
    assert [len(part) for part in empty.search(gauss(rng, 8), 3)] == [0, 0]
    assert [len(part) for part in empty.search(np.zeros(8), 3)] == [0, 0]
    one = new_index(gauss(rng, 1, 8))
    assert one.search(gauss(rng, 8), 3).items.tolist() == [0]
    assert one.search(gauss(rng, 8), 3, excluded=[0]).items.tolist() == []
    for n in (2, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 1):
        index = new_index(gauss(rng, n, 8))
        for k in (1, n - 1, n, n + 1, 10 * n):
            assert_best(index, gauss(rng, 8), k)
        assert index.search(gauss(rng, 8), 3, np.zeros(n, dtype=bool)).items.tolist() == []
    equal = new_index(np.full((500, 8), 0.1, dtype=np.float32))
    assert equal.search(gauss(rng, 8), 4, excluded=[0, 2]).items.tolist() == [1, 3, 4, 5]
    zeros = new_index(np.zeros((500, 8), dtype=np.float32))
    assert zeros.search(gauss(rng, 8), 3).scores.tolist() == [0, 0, 0]


def test_a_zero_query_orders_by_bias(new_index):
    rng = np.random.default_rng(5)
    items, bias = lognormal(rng, 500, 8), rng.integers(0, 5, 500).astype(np.float32)
    assert new_index(items).search(np.zeros(8), 3).items.tolist() == [0, 1, 2]
    for allowed in (None, rng.random(500) < 0.5):
        assert_best(new_index(items, bias), np.zeros(8), 30, allowed)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6], ids=str)
def test_a_bias_of_any_size_is_added_exactly(new_index, scale):
    rng = np.random.default_rng(6)
    items, bias, query = lognormal(rng, 900, 16), np.float32(scale) * gauss(rng, 900), gauss(rng, 16)
    index = new_index(items, bias)
    assert_best(index, query, 20)
    reference = items.astype(float) @ query + bias
    assert index.search(query, 20).items.tolist() == np.argsort(-reference)[:20].tolist()


def test_several_queries_are_answered_as_each_alone(new_index):
    rng = np.random.default_rng(7)
    index = new_index(lognormal(rng, 900, 16), gauss(rng, 900))
    queries, allowed = gauss(rng, 40, 16), rng.random(900) < 0.6
    queries[7] = 0
    excluded = [rng.integers(0, 900, rng.integers(0, 5)) for _ in queries]
    for found, query, out in zip(index.search_many(queries, 6, allowed, excluded), queries, excluded, strict=True):
        alone = index.search(query, 6, allowed, out)
        assert found.items.tolist() == alone.items.tolist() and found.scores.tobytes() == alone.scores.tobytes()
    assert index.search_many([], 6) == []
    with pytest.raises(DataError, match="40 queries have 39 lists of excluded items"):
        index.search_many(queries, 6, excluded=excluded[1:])


def test_threads_share_an_index(whole_blocks):
    rng = np.random.default_rng(8)
    index = ItemIndex(gauss(rng, 70_000, 64))
    queries, allowed = gauss(rng, 48, 64), rng.random(70_000) < 0.5
    expected = [index.search(query, 10, allowed).items.tolist() for query in queries]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: index.search(query, 10, allowed).items.tolist(), queries))
    assert found == expected


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_an_index_survives_its_folder(new_index, tmp_path, biased):
    rng = np.random.default_rng(9)
    items, bias = lognormal(rng, 300, 8), gauss(rng, 300) if biased else None
    index = new_index(items, bias)
    index.write(tmp_path)
    seal(tmp_path, "recommender", "recommendation")
    verify(tmp_path)
    again, query = ItemIndex.read(tmp_path), gauss(rng, 8)
    assert again.scores(query).tobytes() == index.scores(query).tobytes()
    assert again.search(query, 9).items.tolist() == index.search(query, 9).items.tolist()
    assert load_file(tmp_path / FILE)["items"].tobytes() == items.tobytes(), "in the order they came in"


def test_an_index_does_not_change_with_the_array_it_was_made_of(new_index):
    items = gauss(np.random.default_rng(10), 300, 8)
    index, query = new_index(items), items[0].copy()
    before = index.scores(query).tobytes()
    items[:] = 0
    assert index.scores(query).tobytes() == before


def test_a_damaged_file_is_named_with_the_way_out(new_index, tmp_path):
    path = tmp_path / FILE
    with pytest.raises(ModelError, match=r"item_index\.safetensors cannot be read .*; export the model again"):
        ItemIndex.read(tmp_path)
    new_index(gauss(np.random.default_rng(11), 300, 8)).write(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole + b"more", b"", b"\xff" * 100, b"\x80\x04N."):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"item_index\.safetensors cannot be read .*; export the model again"):
            ItemIndex.read(tmp_path)
    for tensors, expected in (
        ({"vectors": np.zeros((3, 2), dtype=np.float32)}, "'items'"),
        ({"items": np.zeros((3, 2))}, "float64"),
        ({"items": np.full((3, 2), np.nan, dtype=np.float32)}, "first in row 0"),
        ({"items": np.zeros((3, 2), dtype=np.float32), "bias": np.zeros(4, dtype=np.float32)}, r"shape \(3,\)"),
    ):
        save_file(tensors, path)
        with pytest.raises(ModelError, match=rf"item_index\.safetensors .*{expected}.*; export the model again"):
            ItemIndex.read(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(new_index, bad):
    items, bias = gauss(np.random.default_rng(12), 300, 8), np.zeros(300, dtype=np.float32)
    index = new_index(items, bias)
    query = items[0].copy()
    query[3] = bad
    with pytest.raises(DataError, match="query holds NaN or infinite numbers"):
        index.search(query, 3)
    bias[7] = bad
    with pytest.raises(ModelError, match="item biases hold NaN or infinite numbers, first in row 7; mend the model"):
        new_index(items, bias)
    items[5, 2] = bad
    with pytest.raises(ModelError, match="item vectors hold NaN or infinite numbers, first in row 5; mend the model"):
        new_index(items)


def test_wrong_shapes_and_arguments_are_refused(new_index):
    items = gauss(np.random.default_rng(13), 300, 8)
    index, mask = new_index(items), np.ones(300, dtype=bool)
    for wrong in (items[0], items.astype(float), items[:, :0], np.zeros((1, 1 << 17), dtype=np.float32)):
        with pytest.raises(ModelError, match="they must be float32 of shape"):
            ItemIndex(wrong)
    with pytest.raises(ModelError, match=r"they must be float32 of shape \(300,\)"):
        new_index(items, np.zeros(300))
    with pytest.raises(ConfigError, match="k is 0; ask for at least 1 item"):
        index.search(items[0], 0)
    for query in (items[0, :7], items[:1]):
        with pytest.raises(DataError, match="items have 8 dimensions"):
            index.search(query)
    with pytest.raises(DataError, match="too large for float32"):
        index.search(items[0] * np.float32(1e38))
    for allowed in (mask[1:], mask.astype(int)):
        with pytest.raises(DataError, match="give one bool for each of 300 items"):
            index.search(items[0], 3, allowed)
    for excluded in ([300], [-1], mask, [0.5]):
        with pytest.raises(DataError, match="item indices from 0 to 299"):
            index.search(items[0], 3, excluded=excluded)


def test_searching_needs_no_training_library():
    code = (
        "import sys, numpy as np; from aftersales.runtime.retrieval import ItemIndex;"
        "ItemIndex(np.ones((5000, 4), dtype=np.float32)).search(np.ones(4), 3);"
        "assert not {'onnx', 'torch', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gauss", "of_one_length", "lognormal", "outliers"])
def test_a_million_items_take_less_than_20_ms(whole_blocks, kind):
    rng = np.random.default_rng(14)
    index = ItemIndex(VECTORS[kind](rng, 1_000_000, 64))
    allowed = rng.random(1_000_000) < 0.9
    for mask in (None, allowed):
        times = []
        for query in gauss(rng, 40, 64):
            started = time.thread_time()  # the search runs on the caller's thread; waiting for others does not count
            index.search(query, 20, mask)
            times.append(time.thread_time() - started)
        assert min(times) < 0.02, "even the quickest, which nothing else slowed down by taking the memory's speed"
        assert_best(index, gauss(rng, 64), 20, mask)
