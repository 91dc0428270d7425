"""The floor: character TF-IDF with a linear support vector machine (Wang and Manning 2012 show how hard it is)."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from aftersales.text.normalise import normalise

STRENGTHS = (0.25, 0.5, 1.0, 2.0)
MARGINS = np.linspace(-1.0, 0.3, 27)


def floor_predictions(
    train: tuple[Sequence[str], np.ndarray],
    validation: tuple[Sequence[str], np.ndarray],
    test_texts: Sequence[str],
    multi_label: bool,
) -> np.ndarray:
    """Fit the floor, choosing C (and, for multi-label tasks, the margin) by micro-F1 on validation.

    Args:
        train: texts and their labels, boolean of shape (rows, labels).
        validation: likewise.
        test_texts: texts to predict.
        multi_label: any number of labels a text instead of one.

    Returns:
        Predictions for ``test_texts``, boolean of shape (rows, labels).
    """
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
    features = vectorizer.fit_transform([normalise(text).lower() for text in train[0]])
    held = vectorizer.transform([normalise(text).lower() for text in validation[0]])
    target = train[1] if multi_label else train[1].argmax(1)
    margins = MARGINS if multi_label else (0.0,)
    best = (-1.0, OneVsRestClassifier(LinearSVC()), 0.0)
    for strength in STRENGTHS:
        model = OneVsRestClassifier(LinearSVC(C=strength)).fit(features, target)
        scores = _scores(model, held, train[1].shape[1])
        for margin in margins:
            predicted = _decide(scores, multi_label, float(margin))
            f1 = 2 * (predicted & validation[1]).sum() / max(1, predicted.sum() + validation[1].sum())
            if f1 > best[0]:
                best = (float(f1), model, float(margin))
    _, model, margin = best
    features = vectorizer.transform([normalise(text).lower() for text in test_texts])
    return _decide(_scores(model, features, train[1].shape[1]), multi_label, margin)


def _scores(model: OneVsRestClassifier, features: object, labels: int) -> np.ndarray:
    """Return decision values of shape (rows, labels); with two labels the machine gives one column only."""
    scores = np.asarray(model.decision_function(features))
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 and labels == 2 else scores


def _decide(scores: np.ndarray, multi_label: bool, margin: float) -> np.ndarray:
    if multi_label:
        return np.asarray(scores > margin)
    return np.asarray(scores == scores.max(axis=1, keepdims=True))
