"""How much the lexical half counts beside the encoder, chosen on validation by likelihood."""

import numpy as np

from aftersales.classifiers.calibrate import fit_temperature

# Decision values of a support vector machine lie within about one of zero, logits within about ten.
LEXICAL_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)


def choose_lexical_weight(neural: np.ndarray, lexical: np.ndarray, gold: np.ndarray, multi_label: bool) -> float:
    """Return the weight w whose ``neural + w * lexical`` makes the gold labels likeliest, each w with its own best
    temperature; 0 where the encoder is better alone.

    Args:
        neural: the encoder's validation logits, shape (rows, labels).
        lexical: decision values of the lexical half, same shape.
        gold: boolean, same shape.
        multi_label: any number of labels a text instead of one.
    """
    losses = {weight: fit_temperature(neural + weight * lexical, gold, multi_label)[1] for weight in LEXICAL_WEIGHTS}
    return min(losses, key=losses.__getitem__)
