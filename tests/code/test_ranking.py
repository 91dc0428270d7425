"""Ranking metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from aftersales.core.errors import DataError, ModelError
from aftersales.corpora.interactions import Histories, Holdout
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.ranking import Ranking, evaluate_ranking, target_ranks

SCORES = np.array([[0.9, 0.1, 0.5, 0.7], [0.2, 0.8, 0.2, 0.2]], dtype=np.float32)
HISTORIES = Histories.of([[1, 4], [2]])


def scorer(histories: Histories) -> np.ndarray:
    return SCORES[[int(user) for user in histories.users]]


def test_ranks_by_hand() -> None:
    assert target_ranks(SCORES, np.array([3, 4])).tolist() == [3, 4]  # ties come in the catalogue's order
    assert target_ranks(SCORES, np.array([1, 1])).tolist() == [1, 2]


def test_metrics_by_hand() -> None:
    ranking = Ranking(np.array([1, 3, 11]), {5: 1.0, 10: 1.0, 20: 1.0})
    figures = ranking.figures()
    assert figures["hr@10"] == pytest.approx(2 / 3)
    assert figures["hr@20"] == 1.0
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert figures["mrr@20"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)
    with pytest.raises(DataError, match="hr@k"):
        ranking.values("recall@10")


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
