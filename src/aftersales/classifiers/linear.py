"""Linear support vector machines over character TF-IDF: the floor, and the lexical half of a classifier.

The lexical half is the floor again, or the same machine over n-grams scaled by what naive Bayes thinks of them (Wang
and Manning 2012, section 2.3, "NBSVM") where that is clearly better on validation: long opinions gain from it, short
questions do not. The floor itself stays plain, the one that others report.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from aftersales.runtime.lexical import LONGEST, Lexical, lexical_form

STRENGTHS = (0.25, 0.5, 1.0, 2.0)
SCALED_STRENGTHS = (0.1, 0.3, 1.0, 3.0)
MARGINS = sorted(np.linspace(-1.0, 0.3, 27), key=abs)  # of equally good ones, the nearest to zero
MAX_NGRAMS = 500_000
SURE = 0.05  # chance, at most, of taking the scaled model although it is no better
ALWAYS = 9.0  # beyond every decision value


@dataclass(frozen=True)
class LinearModel:
    """One fitted model.

    Attributes:
        lexical: n-grams and their weights.
        margin: decision value above which a label of a multi-label task is given.
        multi_label: any number of labels a text instead of one.
        f1: micro-F1 on validation.
    """

    lexical: Lexical
    margin: float
    multi_label: bool
    f1: float

    def predictions(self, texts: Sequence[str]) -> np.ndarray:
        """Return the labels given, boolean of shape (texts, labels)."""
        return _decide(self.lexical.scores(texts), self.multi_label, self.margin)

    def times(self, factor: float) -> Self:
        """Return the model that gives the same labels with all its scores multiplied."""
        weights = (self.lexical.weights.astype(np.float32) * factor).astype(np.float16)
        lexical = replace(self.lexical, weights=weights, bias=self.lexical.bias * np.float32(factor))
        return replace(self, lexical=lexical, margin=self.margin * factor)


@dataclass(frozen=True)
class Linear:
    """What is learned without an encoder.

    Attributes:
        floor: what every classifier is measured against.
        half: what is added to the encoder; the floor itself, or the better one scaled by naive Bayes.
    """

    floor: LinearModel
    half: LinearModel


def fit_linear(
    train: tuple[Sequence[str], np.ndarray], validation: tuple[Sequence[str], np.ndarray], multi_label: bool
) -> Linear:
    """Fit floor and lexical half, choosing C (of many labels also the margin) by micro-F1 on validation.

    Args:
        train: texts and their labels, boolean of shape (rows, labels).
        validation: likewise.
        multi_label: any number of labels a text instead of one.
    """
    vectorizer = TfidfVectorizer(
        analyzer="char",
        ngram_range=(1, LONGEST),
        sublinear_tf=True,
        max_features=MAX_NGRAMS,
        lowercase=False,
        dtype=np.float32,
    )
    features = vectorizer.fit_transform([lexical_form(text) for text in train[0]])
    unseen = vectorizer.transform([lexical_form(text) for text in validation[0]])

    def best(scales: np.ndarray | None, strengths: Sequence[float]) -> LinearModel:
        machines = (_weights(features, train[1], scales, strength) for strength in strengths)
        models = (_with_margin(_lexical(vectorizer, one), unseen, validation[1], multi_label) for one in machines)
        return max(models, key=lambda model: model.f1)

    floor = best(None, STRENGTHS)
    scaled = best(_naive_bayes(features, train[1]), SCALED_STRENGTHS)
    if not _clearly_better(scaled, floor, unseen, validation[1]):
        return Linear(floor, floor)
    spread, wanted = (float(np.std(_scores(one.lexical, unseen))) for one in (scaled, floor))
    # As wide as the floor's scores, so that the weights to choose from beside an encoder fit both.
    return Linear(floor, scaled.times(wanted / spread) if wanted and spread else scaled)


def _clearly_better(one: LinearModel, other: LinearModel, features: csr_matrix, gold: np.ndarray) -> bool:
    """Whether ``one`` is right on more rows than chance explains: a sign test on the rows where they differ.

    Choosing by the figure alone cost 2.6 points on 2,681 test rows where 403 validation rows preferred the wrong one.
    """
    ours, theirs = (
        (_decide(_scores(model.lexical, features), model.multi_label, model.margin) == gold).all(axis=1)
        for model in (one, other)
    )
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return wins > losses and bool(binomtest(wins, wins + losses, alternative="greater").pvalue < SURE)


def _scores(lexical: Lexical, features: csr_matrix) -> np.ndarray:
    return np.asarray(features @ lexical.weights.astype(np.float32) + lexical.bias)


def _with_margin(lexical: Lexical, features: csr_matrix, gold: np.ndarray, multi_label: bool) -> LinearModel:
    """Return the linear model with its best margin on the rows whose TF-IDF is given."""
    scores = _scores(lexical, features)
    found = []
    for margin in MARGINS if multi_label else (0.0,):
        given = _decide(scores, multi_label, float(margin))
        f1 = 2 * (given & gold).sum() / max(1, given.sum() + gold.sum())
        found.append(LinearModel(lexical, float(margin), multi_label, float(f1)))
    return max(found, key=lambda model: model.f1)


def _naive_bayes(features: csr_matrix, gold: np.ndarray) -> np.ndarray:
    """Return log-count ratios of shape (labels, n-grams): how much likelier an n-gram is with a label than without."""
    present = (features > 0).astype(np.float32)
    with_label = 1.0 + present.T @ gold.astype(np.float32)
    without = 1.0 + present.T @ (~gold).astype(np.float32)
    ratios = np.log(with_label / with_label.sum(axis=0)) - np.log(without / without.sum(axis=0))
    return np.ascontiguousarray(ratios.T, dtype=np.float32)


def _weights(
    features: csr_matrix, gold: np.ndarray, scales: np.ndarray | None, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of shape (n-grams, labels) and biases of shape (labels,), one machine a label.

    Of two labels that exclude each other one machine separates both. What scaled the n-grams is multiplied into the
    weights, so that scoring does not know of it.
    """
    opposites = gold.shape[1] == 2 and bool((gold[:, 0] ^ gold[:, 1]).all())
    weights, biases = np.zeros((gold.shape[1], features.shape[1])), np.ones(gold.shape[1])
    for label in range(1 if opposites else gold.shape[1]):
        if gold[:, label].all() or not gold[:, label].any():
            biases[label] = ALWAYS if gold[:, label].all() else -ALWAYS  # nothing to separate
            continue
        scale = np.ones(features.shape[1], dtype=np.float32) if scales is None else scales[label]
        model = LinearSVC(C=strength, random_state=0).fit(features @ diags(scale), gold[:, label])
        weights[label], biases[label] = model.coef_[0] * scale, model.intercept_[0]
    if opposites:
        weights[1], biases[1] = -weights[0], -biases[0]
    return weights.T, biases


def _lexical(vectorizer: TfidfVectorizer, weights: tuple[np.ndarray, np.ndarray]) -> Lexical:
    """Take vocabulary and weights out of scikit-learn's objects."""
    return Lexical(
        vocabulary={str(ngram): int(place) for ngram, place in vectorizer.vocabulary_.items()},
        idf=vectorizer.idf_.astype(np.float32),
        weights=np.ascontiguousarray(weights[0]).astype(np.float16),
        bias=weights[1].astype(np.float32),
    )


def _decide(scores: np.ndarray, multi_label: bool, margin: float) -> np.ndarray:
    if multi_label:
        return np.asarray(scores > margin)
    given = np.zeros(scores.shape, dtype=bool)
    given[np.arange(len(given)), scores.argmax(axis=1)] = True
    return given
