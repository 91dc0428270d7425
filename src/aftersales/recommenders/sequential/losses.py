"""What the network learns from: for each place the item that came next, among all items or among drawn ones.

That the full cross-entropy closes most of the gap of SASRec to later models is shown by Klenitskiy & Vasilev 2023
(RecSys), arXiv 2309.07602; that binary losses overrate what they draw few negatives for, by Petrov & Macdonald 2023
(RecSys), arXiv 2308.07192.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aftersales.recommenders.sequential.config import SequentialConfig

# Numbers of places x items in memory at a time.
LOGITS_AT_ONCE = 1 << 22
# Items are drawn by the number of their events to this power (Mikolov et al. 2013, arXiv 1310.4546, section 2.2).
FLATTENED = 0.75


class Loss:
    """The loss that a configuration names, for one catalogue.

    Items without events are neither scored nor drawn: as negatives alone they would teach what they share with others,
    their features, to rank them down.
    """

    def __init__(self, config: SequentialConfig, counts: NDArray[Any]) -> None:
        """Take the number of training events of each item, shape (n_items,)."""
        self.config = config
        known = torch.from_numpy(counts) > 0
        self.known = None if known.all() else known.nonzero()[:, 0]
        self.places = known.cumsum(0) - 1  # of the known items among themselves
        popularity = torch.from_numpy(counts)[known].double()
        flattened = popularity**FLATTENED if config.loss == "sampled_softmax" else torch.ones_like(popularity)
        self.shares = (flattened / flattened.sum()).float()

    def __call__(self, states: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over places.

        Args:
            states: shape (places, dimensions).
            matrix: vectors of items, shape (n_items, dimensions); scores are its products with ``states``.
            targets: which row of ``matrix`` came next, shape (places,); an item with events.
        """
        if self.known is not None:
            matrix = matrix[self.known.to(matrix.device)]
            targets = self.places.to(targets.device)[targets]
        if self.config.loss == "cross_entropy":
            loss: Tensor = _CrossEntropy.apply(states, matrix, targets)  # type: ignore[no-untyped-call]
            return loss
        drawn = torch.multinomial(self.shares, self.config.negatives, replacement=True).to(states.device)
        positive = (states.float() * matrix[targets].float()).sum(dim=-1)
        negative = (states @ matrix[drawn].to(states.dtype).t()).float()
        hit = targets[:, None] == drawn[None, :]  # the target itself is no negative
        if self.config.loss == "gbce":
            return gbce(positive, negative.masked_fill(hit, float("-inf")), len(matrix), self.config.calibration)
        likely = self.shares.to(states.device)[drawn].log()
        return sampled_softmax(positive, negative.masked_fill(hit, float("-inf")), likely)


def gbce(positive: Tensor, negative: Tensor, n_items: int, calibration: float) -> Tensor:
    """Return the generalised binary cross-entropy (Petrov & Macdonald 2023, arXiv 2308.07192).

    The positive probability is raised to the power b = a (t (1 - 1/a) + 1/a), where a is the share of the negatives
    that is drawn and t the calibration.

    Args:
        positive: scores of what came next, shape (places,).
        negative: scores of drawn items, -inf for none, shape (places, k).
        n_items: how many items could have been drawn or come next.
        calibration: t.
    """
    k = negative.shape[1]
    drawn = min(1.0, k / max(1, n_items - 1))
    power = drawn * (calibration * (1 - 1 / drawn) + 1 / drawn)
    # -log(sigmoid(s)^b) = b softplus(-s), and -log(1 - sigmoid(s)) = softplus(s).
    total = power * functional.softplus(-positive) + functional.softplus(negative).sum(dim=1)
    return total.mean() / (k + 1)


def sampled_softmax(positive: Tensor, negative: Tensor, log_shares: Tensor) -> Tensor:
    """Return the cross-entropy with the sum over all items estimated from drawn ones.

    A drawn item stands for 1 / (k share) items, so that the estimate of the sum has no bias (Jean et al. 2015,
    arXiv 1412.2007; Bengio & Senécal 2008, IEEE Trans. Neural Networks 19).

    Args:
        positive: scores of what came next, shape (places,).
        negative: scores of items drawn with replacement, -inf for none, shape (places, k).
        log_shares: logarithm of the chance of each drawn item, shape (k,).
    """
    k = negative.shape[1]
    corrected = negative - log_shares - torch.tensor(float(k)).log()
    everything = torch.cat([positive[:, None], corrected], dim=1)
    return (everything.logsumexp(dim=1) - positive).mean()


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of ``states @ matrix.T``, a few places at a time.

    The gradient is computed in the forward pass, so that no more than ``LOGITS_AT_ONCE`` scores are ever in memory and
    none is computed twice. Products are of the type of ``states``, the softmax is in 32 bits.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
        items = matrix.to(states.dtype)
        by_states = torch.empty_like(states)
        by_matrix = torch.zeros_like(matrix, dtype=torch.promote_types(matrix.dtype, torch.float32))
        total = torch.zeros((), device=states.device, dtype=by_matrix.dtype)
        at_once = max(1, LOGITS_AT_ONCE // len(matrix))
        for part in (slice(start, start + at_once) for start in range(0, len(states), at_once)):
            scores = (states[part] @ items.t()).to(by_matrix.dtype)
            everything = scores.logsumexp(dim=1, keepdim=True)
            own = targets[part, None]
            total += (everything - scores.gather(1, own)).sum()
            scores.sub_(everything).exp_()  # now the probabilities, and then the gradient of the scores
            scores.scatter_add_(1, own, torch.full_like(everything, -1.0))
            change = scores.to(states.dtype)
            by_states[part] = change @ items
            by_matrix += change.t() @ states[part]
        places = max(1, len(states))
        ctx.save_for_backward(by_states / places, (by_matrix / places).to(matrix.dtype))
        return total / places

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None]:
        by_states, by_matrix = ctx.saved_tensors
        return by_states * outer[0].to(by_states.dtype), by_matrix * outer[0].to(by_matrix.dtype), None
