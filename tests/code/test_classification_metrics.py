"""Metrics, intervals, floor and calibration, checked against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from aftersales.classifiers.calibrate import calibrate, fit_confidence, judged, lowest_confidence, predictions
from aftersales.classifiers.linear import fit_linear
from aftersales.evaluation.classification import (
    difference,
    expected_calibration_error,
    figures,
    metric_values,
    per_label,
)
from aftersales.runtime.classifier import calibrated
from aftersales.runtime.decision import rescaled


def one_hot(labels, count):
    return np.eye(count, dtype=bool)[labels]


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_agree_with_scikit_learn(multi_label):
    random = np.random.default_rng(3)
    if multi_label:
        gold, predicted = random.random((200, 5)) < 0.3, random.random((200, 5)) < 0.4
    else:
        gold, predicted = one_hot(random.integers(0, 5, 200), 5), one_hot(random.integers(0, 5, 200), 5)
    found = {name: value[0] for name, value in metric_values(gold, predicted, np.ones((1, 200))).items()}
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    for average in ("macro", "micro", "weighted"):
        assert found[f"{average}_f1"] == pytest.approx(f1_score(gold, predicted, average=average), abs=1e-6)


def test_weights_are_repetitions():
    gold, predicted = one_hot([0, 1, 1, 2], 3), one_hot([0, 1, 2, 2], 3)
    weighted = metric_values(gold, predicted, np.array([[2, 0, 1, 3]]))
    repeated = [0, 0, 2, 3, 3, 3]
    plain = metric_values(gold[repeated], predicted[repeated], np.ones((1, 6)))
    for name, value in plain.items():
        assert weighted[name] == pytest.approx(value)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        right = random.random(150) < 0.8
        gold = one_hot(np.zeros(150, dtype=int), 2)
        figure = figures(gold, one_hot((~right).astype(int), 2))["accuracy"]
        covered += figure.low <= 0.8 <= figure.high
    assert covered >= 52


def test_a_paired_difference_is_exact_and_zero_for_equal_predictions():
    gold = one_hot([0, 1] * 50, 2)
    worse = gold.copy()
    worse[:20] = ~worse[:20]
    found = difference("accuracy", gold, gold, worse)
    assert found.value == pytest.approx(0.2) and found.significant and found.low > 0.1
    same = difference("accuracy", gold, worse, worse)
    assert (same.value, same.low, same.high, same.significant) == (0, 0, 0, False)


def test_per_label_counts():
    table = per_label(one_hot([0, 0, 1], 2), one_hot([0, 1, 1], 2), ["a", "b"])
    assert table["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "rows": 2}


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    assert expected_calibration_error(confidence, np.array([1, 1, 1, 0])) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)


def test_the_temperature_mends_overconfidence():
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.ones(4), 2000)
    labels = np.array([random.choice(4, p=row) for row in probabilities])
    found = calibrate(np.log(probabilities) * 3, one_hot(labels, 4), False, 0.9)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert calibrated(np.array([[1.0, 2.0]]), 2.0, False).sum() == pytest.approx(1)


def test_the_answer_threshold_gives_the_wanted_precision():
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    assert lowest_confidence(confidence, right, 0.75) == 0.6
    assert lowest_confidence(confidence, right, 0.9) == 0.8
    assert lowest_confidence(confidence, ~right, 1.0) > 1.0


def test_the_confidence_of_a_multi_label_answer_becomes_a_probability():
    random = np.random.default_rng(0)
    probabilities = random.beta(0.4, 0.4, (4000, 6))
    gold = random.random((4000, 6)) < probabilities  # calibrated by label, yet an answer of six is rarely all right
    raw, right = judged(probabilities, gold, True, 0.5)
    scale, shift = fit_confidence(raw, right)
    before = expected_calibration_error(raw, right)
    after = expected_calibration_error(rescaled(raw, scale, shift), right)
    assert before > 0.2 and after < 0.05
    assert rescaled(raw, 1.0, 0.0) == pytest.approx(raw, abs=1e-5)


def test_a_flawless_validation_split_does_not_hand_off_whatever_is_a_little_less_sure():
    logits = np.eye(4)[np.arange(40) % 4] * 40
    found = calibrate(logits, logits > 0, False, 0.9)
    assert found.answer_threshold <= 0.9 and found.clarify_threshold <= found.answer_threshold
    assert lowest_confidence(np.array([0.9, 0.9]), np.array([True, False]), 0.9) > 1.0


def test_rows_below_the_answers_must_earn_the_question_back():
    gold = one_hot([0] * 200, 2)
    logits = np.where(np.arange(200) < 100, 4.0, -1.0)[:, None] * np.array([[1.0, 0.0]])
    found = calibrate(logits, gold, False, 0.9)
    probabilities = calibrated(logits, found.temperature, False)
    assert (probabilities[:100, 0] >= found.answer_threshold).all()
    assert (probabilities[100:].max(axis=1) < found.clarify_threshold).all(), "all of these are wrong"


def test_a_single_label_is_always_given_and_many_may_be_none():
    probabilities = np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.1]])
    assert predictions(probabilities, False, 0.5).sum() == 2
    assert predictions(probabilities, True, 0.35).sum(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_floor_learns_what_words_say(multi_label):
    texts = [f"{word}{i}号" for i in range(20) for word in ("退款没到", "快递很慢", "发票抬头")]
    gold = one_hot([0, 1, 2] * 20, 3)
    linear = fit_linear((texts, gold), (texts[:6], gold[:6]), multi_label)
    assert linear.floor.predictions(["退款呢", "快递呢", "发票呢"]).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_label_that_all_or_no_texts_bear():
    texts, gold = ["好极了", "太差了"] * 10, one_hot([0, 1] * 10, 4)
    gold[:, 3] = True
    found = fit_linear((texts, gold), (texts, gold), True).floor.predictions(["太差", "随便"])
    assert found[:, 2].tolist() == [False, False]
    assert found[:, 3].tolist() == [True, True]


def test_the_floor_knows_two_labels():
    texts, gold = ["好极了", "太差了"] * 10, one_hot([0, 1] * 10, 2)
    found = fit_linear((texts, gold), (texts[:2], gold[:2]), False).floor.predictions(["太差"])
    assert found.tolist() == [[False, True]]
