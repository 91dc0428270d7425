"""Ranking metrics against values worked out by hand."""

import math
import time

import numpy as np
import pytest

from aftersales.core.errors import DataError, ModelError
from aftersales.corpora.histories import Histories, Holdout
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.rank_metrics import METRICS, gains
from aftersales.evaluation.ranking import Ranking, evaluate_ranking, target_ranks

SCORES = np.array([[0.9, 0.1, 0.5, 0.7], [0.2, 0.8, 0.2, 0.2]], dtype=np.float32)
HISTORIES = Histories.of([[1, 4], [2]])


def scorer(histories: Histories) -> np.ndarray:
    return SCORES[[int(user) for user in histories.users]]


def test_ranks_by_hand() -> None:
    assert target_ranks(SCORES, np.array([3, 4])).tolist() == [3, 4]  # ties come in the catalogue's order
    assert target_ranks(SCORES, np.array([1, 1])).tolist() == [1, 2]


def test_metrics_by_hand() -> None:
    ranking = Ranking(np.array([1, 3, 11]), {5: 1.0, 10: 1.0, 20: 1.0}, np.zeros((3, 20), dtype=np.int64))
    figures = ranking.figures()
    assert figures["hr@10"] == figures["recall@10"] == pytest.approx(2 / 3)
    assert figures["hr@20"] == 1.0
    assert figures["precision@5"] == pytest.approx(2 / 3 / 5)
    assert figures["f1@5"] == pytest.approx(2 / 3 * 2 * (1 / 5) * 1 / (1 / 5 + 1))
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert figures["mrr@20"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)
    for wrong in ("auc@10", "hr", "hr@0", "hr@ten"):
        with pytest.raises(DataError, match="hr@k, recall@k"):
            ranking.values(wrong)


def test_metrics_of_several_targets_by_hand() -> None:
    ranks, offsets = np.array([2, 9, 4, 30]), np.array([0, 3, 4])  # three targets at 2, 9 and 4; one at 30

    def first(metric: str) -> float:
        values = gains(metric, ranks, offsets)
        assert values.shape == (2,) and values[1] == 0
        return float(values[0])

    assert [first(f"hr@{k}") for k in (1, 5, 10)] == [0, 1, 1]
    assert [first(f"recall@{k}") for k in (1, 5, 10)] == pytest.approx([0, 2 / 3, 1])
    assert [first(f"precision@{k}") for k in (1, 5, 10)] == pytest.approx([0, 2 / 5, 3 / 10])
    assert first("f1@5") == pytest.approx(2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3)) and first("f1@1") == 0
    assert first("mrr@5") == 1 / 2 and first("mrr@1") == 0
    found, best = 1 / math.log2(3) + 1 / math.log2(5), 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert first("ndcg@5") == pytest.approx(found / best)
    assert gains("ndcg@2", np.array([1, 2, 7]), np.array([0, 3])).tolist() == pytest.approx([1])


def test_history_and_other_kinds_are_excluded_by_option() -> None:
    holdout = Holdout(HISTORIES, np.array([3, 4]))
    assert evaluate_ranking(scorer, holdout).ranks.tolist() == [3, 4]
    assert evaluate_ranking(scorer, holdout, exclude_history=True).ranks.tolist() == [1, 3]
    candidates = np.array([False, True, True, True])
    assert evaluate_ranking(scorer, holdout, candidates).ranks.tolist() == [2, 3]
    with pytest.raises(DataError, match="not among the candidates"):
        evaluate_ranking(scorer, Holdout(HISTORIES, np.array([1, 4])), candidates)


def test_an_excluded_target_is_a_miss() -> None:
    again = Holdout(HISTORIES, np.array([1, 2]))
    assert evaluate_ranking(scorer, again).ranks.tolist() == [1, 1]
    assert evaluate_ranking(scorer, again, exclude_history=True).ranks.tolist() == [4, 4]


def test_coverage_counts_what_is_shown() -> None:
    holdout = Holdout(HISTORIES, np.array([3, 4]))
    assert evaluate_ranking(scorer, holdout, cutoffs=(1,)).coverage == {1: 0.5}
    assert evaluate_ranking(scorer, holdout, cutoffs=(1,), exclude_history=True).coverage == {1: 0.5}
    assert evaluate_ranking(scorer, holdout, cutoffs=(4,), exclude_history=True).coverage == {4: 1.0}


def test_a_large_catalogue_is_ranked_for_few_users_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    holdout, asked = Holdout(HISTORIES, np.array([3, 4])), []

    def counting(histories: Histories) -> np.ndarray:
        asked.append(len(histories))
        return scorer(histories)

    whole = evaluate_ranking(counting, holdout)
    assert max(asked) == 2
    monkeypatch.setattr("aftersales.evaluation.ranking.SCORES_AT_ONCE", 7)
    asked.clear()
    again = evaluate_ranking(counting, holdout)
    assert max(asked) == 1 and again.ranks.tolist() == whole.ranks.tolist()
    assert again.figures() == whole.figures()


def test_batches_change_nothing() -> None:
    random = np.random.default_rng(0)
    scores = random.random((50, 30), dtype=np.float32)
    histories = Histories.of([random.integers(1, 31, size=4).tolist() for _ in range(50)])
    holdout = Holdout(histories, random.integers(1, 31, size=50))

    def score(part: Histories) -> np.ndarray:
        return scores[[int(user) for user in part.users]]

    whole = evaluate_ranking(score, holdout, exclude_history=True)
    parts = evaluate_ranking(score, holdout, exclude_history=True, batch_size=7)
    assert whole.ranks.tolist() == parts.ranks.tolist() and whole.coverage == parts.coverage


def by_loops(scores: np.ndarray, holdout: Holdout, shown: np.ndarray, k: int) -> dict[str, float]:
    """The definitions, user by user, from sorted lists."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    lists = []
    for user in range(len(holdout.histories)):
        allowed = [item for item in range(scores.shape[1]) if shown[user, item]]
        listed = sorted(allowed, key=lambda item: (-float(scores[user, item]), item))[:k]
        wanted = {int(target) - 1 for target in holdout.targets[holdout.rows == user]}
        hit = [item in wanted for item in listed]
        lists.append([item + 1 for item in listed])
        recall, precision = sum(hit) / len(wanted), sum(hit) / k
        dcg = sum(1 / math.log2(place + 2) for place, right in enumerate(hit) if right)
        found["hr"].append(float(any(hit)))
        found["recall"].append(recall)
        found["precision"].append(precision)
        found["f1"].append(2 * recall * precision / (recall + precision) if any(hit) else 0.0)
        found["ndcg"].append(dcg / sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted)))))
        found["mrr"].append(1 / (hit.index(True) + 1) if any(hit) else 0.0)
    coverage = len({item for row in lists for item in row}) / shown.any(axis=0).sum()
    return {f"{name}@{k}": float(np.mean(values)) for name, values in found.items()} | {f"coverage@{k}": coverage}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("exclude_history", [False, True])
def test_figures_are_those_of_a_loop_over_sorted_lists(several: bool, exclude_history: bool) -> None:
    random = np.random.default_rng(3)
    users, n_items = 60, 40
    scores = random.integers(-3, 4, size=(users, n_items)).astype(np.float32)  # many ties, and negative zeros
    scores[scores == 0] *= random.choice([-1, 1], size=int((scores == 0).sum()))
    histories = Histories.of([random.integers(1, n_items + 1, size=5).tolist() for _ in range(users)])
    candidates = random.random(n_items) < 0.8
    number = random.integers(1, 5, size=users) if several else np.ones(users, dtype=np.int64)
    targets = [random.choice(np.flatnonzero(candidates) + 1, size=n, replace=False) for n in number]
    offsets = np.append(0, np.cumsum(number)) if several else None
    holdout = Holdout(histories, np.concatenate(targets), offsets)

    def score(part: Histories) -> np.ndarray:
        return scores[[int(user) for user in part.users]]

    shown = np.tile(candidates, (users, 1))
    if exclude_history:
        shown[histories.rows, histories.items - 1] = False
    for batch_size in (7, 1000):
        ranking = evaluate_ranking(score, holdout, candidates, exclude_history, (1, 3, 20), batch_size)
        for k in (1, 3, 20):
            expected = by_loops(scores, holdout, shown, k)
            assert {name: ranking.figures()[name] for name in expected} == pytest.approx(expected)


def test_lists_end_where_nothing_may_be_shown() -> None:
    holdout = Holdout(HISTORIES, np.array([3, 4]))
    lists = evaluate_ranking(scorer, holdout, np.array([True, False, True, True]), True, cutoffs=(4,)).lists
    assert lists.tolist() == [[3, 0, 0, 0], [1, 3, 4, 0]]
    assert evaluate_ranking(scorer, holdout, cutoffs=(1, 9)).lists.tolist() == [[1, 4, 3, 2], [2, 1, 3, 4]]


def test_all_users_of_movielens_size_are_ranked_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    users, n_items = 6040, 3416
    scores = random.standard_normal((users, n_items), dtype=np.float32)
    histories = Histories.of(random.integers(1, n_items + 1, size=(users, 100)).tolist())
    holdout = Holdout(histories, random.integers(1, n_items + 1, size=users))
    started = time.process_time()  # of this process, whatever else the machine does
    evaluate_ranking(lambda part: scores[int(part.users[0]) :][: len(part)], holdout, exclude_history=True).figures()
    seconds = time.process_time() - started
    with capsys.disabled():
        print(f"\nranked {users:,} users x {n_items:,} items in {seconds:.2f} s of processor time")
    assert seconds < 5


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="finite"):
        evaluate_ranking(lambda part: np.full((len(part), 4), np.nan, np.float32), Holdout(HISTORIES, np.array([3, 4])))


def test_the_interval_holds_the_mean_and_is_reproducible() -> None:
    values = np.random.default_rng(0).random(500)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(500), rel=0.15)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values - values) == (0.0, 0.0)
