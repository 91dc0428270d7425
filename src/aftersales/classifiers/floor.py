"""The floor: character TF-IDF with a linear support vector machine (Wang and Manning 2012 show how hard it is).

The same fit is the lexical half of a classifier (``classifiers.blend``), so a fine-tuned encoder has to add to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from aftersales.runtime.lexical import LONGEST, Lexical, lexical_form

STRENGTHS = (0.25, 0.5, 1.0, 2.0)
MARGINS = sorted(np.linspace(-1.0, 0.3, 27), key=abs)  # of equally good ones, the nearest to zero
MAX_NGRAMS = 500_000


@dataclass(frozen=True)
class Floor:
    """The fitted floor.

    Attributes:
        lexical: the linear model.
        margin: decision value above which a label of a multi-label task is given.
        multi_label: any number of labels a text instead of one.
    """

    lexical: Lexical
    margin: float
    multi_label: bool

    def predictions(self, texts: Sequence[str]) -> np.ndarray:
        """Return the labels given, boolean of shape (texts, labels)."""
        return _decide(self.lexical.scores(texts), self.multi_label, self.margin)


def fit_floor(
    train: tuple[Sequence[str], np.ndarray], validation: tuple[Sequence[str], np.ndarray], multi_label: bool
) -> Floor:
    """Fit the floor, choosing C (and, for multi-label tasks, the margin) by micro-F1 on validation.

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
    target = train[1] if multi_label else train[1].argmax(1)
    best: tuple[float, Floor] | None = None
    for strength in STRENGTHS:
        model = OneVsRestClassifier(LinearSVC(C=strength)).fit(features, target)
        lexical = _lexical(vectorizer, model, train[1].shape[1])
        scores = lexical.scores(validation[0])
        for margin in MARGINS if multi_label else (0.0,):
            predicted = _decide(scores, multi_label, float(margin))
            f1 = 2 * (predicted & validation[1]).sum() / max(1, predicted.sum() + validation[1].sum())
            if best is None or f1 > best[0]:
                best = (float(f1), Floor(lexical, float(margin), multi_label))
    assert best is not None
    return best[1]


def _lexical(vectorizer: TfidfVectorizer, model: OneVsRestClassifier, labels: int) -> Lexical:
    """Take the weights out of scikit-learn's objects; with two labels it keeps one column, the second's."""
    width = len(vectorizer.vocabulary_)
    # A label that every row bears leaves nothing to separate: scikit-learn puts a constant there.
    weights = np.concatenate([getattr(one, "coef_", np.zeros((1, width))) for one in model.estimators_])
    bias = np.concatenate([getattr(one, "intercept_", np.ones(1)) for one in model.estimators_])
    if len(weights) == 1 and labels == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return Lexical(
        vocabulary={str(ngram): int(place) for ngram, place in vectorizer.vocabulary_.items()},
        idf=vectorizer.idf_.astype(np.float32),
        weights=np.ascontiguousarray(weights.T).astype(np.float16),
        bias=bias.astype(np.float32),
    )


def _decide(scores: np.ndarray, multi_label: bool, margin: float) -> np.ndarray:
    if multi_label:
        return np.asarray(scores > margin)
    given = np.zeros(scores.shape, dtype=bool)
    given[np.arange(len(given)), scores.argmax(axis=1)] = True
    return given
