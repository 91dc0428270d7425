"""The lexical half equals scikit-learn's, survives its folder, and is weighted by what it adds."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from aftersales.classifiers.blend import choose_lexical_weight
from aftersales.classifiers.linear import STRENGTHS, _naive_bayes, fit_linear
from aftersales.core.errors import ModelError
from aftersales.runtime.lexical import VOCABULARY, WEIGHTS, Lexical, lexical_form

TEXTS = ["退款 怎么还没到啊啊啊啊", "快递到哪了", "发票抬头开错了", "退款退款退款", "快递快递 ABC", "要开专票"] * 5
GOLD = np.eye(3, dtype=bool)[[0, 1, 2] * 10]


def test_scores_are_those_of_scikit_learn():
    lexical = fit_linear((TEXTS, GOLD), (TEXTS, GOLD), False).floor.lexical
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, lowercase=False)
    features = vectorizer.fit_transform([lexical_form(text) for text in TEXTS])
    wanted = np.stack(
        [LinearSVC(C=STRENGTHS[0]).fit(features, GOLD[:, label]).decision_function(features) for label in range(3)], 1
    )
    assert lexical.scores(TEXTS) == pytest.approx(wanted, abs=2e-3)  # weights are kept in 16 bits


def test_unknown_and_empty_texts_get_the_bias():
    lexical = fit_linear((TEXTS, GOLD), (TEXTS, GOLD), False).floor.lexical
    assert lexical.scores(["zzz", ""]) == pytest.approx(np.stack([lexical.bias] * 2))


def test_the_folder_keeps_every_score(tmp_path):
    lexical = fit_linear((TEXTS, GOLD), (TEXTS, GOLD), True).floor.lexical
    lexical.write(tmp_path)
    assert (Lexical.read(tmp_path).scores(TEXTS) == lexical.scores(TEXTS)).all()
    (tmp_path / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ModelError, match="export the model again"):
        Lexical.read(tmp_path)
    (tmp_path / VOCABULARY).unlink()
    with pytest.raises(ModelError, match="export the model again"):
        Lexical.read(tmp_path)


def accuracy(gold, given):
    return float((gold == given).all(axis=1).mean())


def test_the_weight_follows_what_the_lexical_half_adds():
    random = np.random.default_rng(0)
    gold = np.eye(3, dtype=bool)[random.integers(0, 3, 400)]
    noise = random.normal(size=(400, 3))
    good = gold * 2.0 + random.normal(size=(400, 3))
    assert choose_lexical_weight(good, noise * 0.3, gold, False, accuracy) <= 1
    assert choose_lexical_weight(noise, good, gold, False, accuracy) >= 6
    assert choose_lexical_weight(noise, good, gold, True, accuracy) >= 6
    perfect = gold * 9.0
    assert choose_lexical_weight(perfect, gold * 1.0, gold, False, accuracy) > 0, "a tie drops neither half"


def test_the_lexical_half_is_scaled_by_naive_bayes_where_that_is_better():
    random = np.random.default_rng(1)
    sides = np.array(list("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往")).reshape(2, 10)
    label = random.integers(0, 2, 700)
    # Each text has one telling character among many that say nothing: the ratio says which.
    noise = [chr(0x5000 + int(n)) for n in range(3000)]
    texts = ["".join([*random.choice(noise, 25), str(random.choice(sides[one]))]) for one in label]
    gold = np.eye(2, dtype=bool)[label]
    linear = fit_linear((texts[:200], gold[:200]), (texts[200:], gold[200:]), False)
    plain, scaled = (
        (one.lexical.scores(texts[200:]).argmax(axis=1) == label[200:]).mean() for one in (linear.floor, linear.half)
    )
    assert scaled > plain
    assert linear.half.lexical.scores(["天"])[0].argmax() == 0
    spreads = [one.lexical.scores(texts[200:]).std() for one in (linear.floor, linear.half)]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1), "one set of weights fits both"
    moved = linear.half.times(3.0)
    assert (moved.predictions(texts[200:]) == linear.half.predictions(texts[200:])).all()


def test_scaling_works_for_many_labels_and_for_several_a_text():
    for multi_label in (False, True):
        half = fit_linear((TEXTS, GOLD), (TEXTS, GOLD), multi_label).half
        assert (half.times(5.0).predictions(TEXTS) == half.predictions(TEXTS)).all()
    ratios = _naive_bayes(TfidfVectorizer(analyzer="char").fit_transform(["甲乙", "甲丙"]), np.eye(2, dtype=bool))
    assert ratios[0] == pytest.approx([-np.log(2), np.log(2), 0], abs=1e-6)  # of 丙, 乙 and 甲
