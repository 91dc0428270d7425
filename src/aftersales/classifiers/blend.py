"""How much the lexical half counts beside the encoder, chosen on validation by the headline metric."""

from collections.abc import Callable

import numpy as np

from aftersales.classifiers.calibrate import best_label_threshold, fit_temperature, predictions
from aftersales.runtime.classifier import calibrated

# Decision values of a support vector machine lie within about one of zero, logits within about ten.
LEXICAL_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)


def choose_lexical_weight(
    neural: np.ndarray,
    lexical: np.ndarray,
    gold: np.ndarray,
    multi_label: bool,
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """Return the weight w whose ``neural + w * lexical`` has the best metric; 0 where the encoder is better alone.

    A few hundred rows make the metric jump from one weight to the next, so each weight is judged together with its two
    neighbours. Likelihood would be smoother, but was measured to choose worse where labels are many and rare: it
    prefers the encoder's well-spread probabilities to the order that the n-grams give.

    Args:
        neural: the encoder's validation logits, shape (rows, labels).
        lexical: decision values of the lexical half, same shape.
        gold: boolean, same shape.
        multi_label: any number of labels a text instead of one.
        metric: the headline metric, of gold labels and given ones.
    """
    values = []
    for weight in LEXICAL_WEIGHTS:
        logits = neural + weight * lexical
        temperature = fit_temperature(logits, gold, multi_label)
        probabilities = calibrated(logits, temperature, multi_label)
        threshold = best_label_threshold(probabilities, gold) if multi_label else 0.5
        given = predictions(probabilities, multi_label, threshold)
        values.append(metric(gold, given))
    padded = np.pad(values, 1, mode="edge")
    smoothed = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    best = np.flatnonzero(smoothed >= smoothed.max() - 1e-9)
    return LEXICAL_WEIGHTS[int(best[len(best) // 2])]  # where many are equally good, neither half is dropped
