"""Multi-task pre-finetuning: a batch of one labelled set beside every batch of text.

Aghajanyan et al. 2021 ("Muppet") found it to help from about 15 sets on and to hurt below. The plain text goes on here;
whether a few sets help is a question for measurement, in experiments/encoder.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from aftersales.core.errors import DataError
from aftersales.corpora.public import load_public
from aftersales.encoders.guard import mark
from aftersales.text.normalise import normalise


@dataclass(frozen=True)
class LabelledBatch:
    """Texts of one labelled set.

    Attributes:
        which: the place of the set, and of its head.
        inputs, mask: token ids and attention mask, shape (rows, length).
        target: label numbers of shape (rows,), or 0 and 1 of shape (rows, labels) where a text may have several.
        multi_label: which of the two.
    """

    which: int
    inputs: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor
    multi_label: bool

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.mask.sum())

    def share(self, process: int, processes: int) -> Self:
        """Return the rows of one of several processes, every ``processes``-th."""
        mine = slice(process, None, processes)
        return replace(self, **{name: getattr(self, name)[mine] for name in ("inputs", "mask", "target")})

    def to(self, device: torch.device) -> Self:
        """Return the batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("inputs", "mask", "target")})


@dataclass(frozen=True)
class LabelledSet:
    """The training rows of a public set.

    Attributes:
        ids: token ids of each text.
        target: boolean, shape (texts, labels).
        multi_label: any number of labels a text instead of one.
        fingerprint: of the set's rows.
    """

    name: str
    ids: Sequence[Sequence[int]]
    target: np.ndarray
    multi_label: bool
    fingerprint: str


def load_labelled(
    names: Sequence[str], guarded: Set[bytes], tokenizer: PreTrainedTokenizerFast, length: int
) -> list[LabelledSet]:
    """Load the training rows of public sets, without any text by which something else will be measured.

    Args:
        names: of the sets.
        guarded: marks of the texts to leave out.
        tokenizer: of the encoder.
        length: tokens of a text at most.

    Raises:
        DataError: no text of a set is left.
    """
    sets = []
    for name in names:
        data = load_public(name)
        examples = [example for example in data.train if mark(example.text) not in guarded]
        if not examples:
            raise DataError(f"labelled.sets.{name}: every text is guarded; leave the set or the guard out")
        ids = tokenizer([normalise(example.text) for example in examples], truncation=True, max_length=length)[
            "input_ids"
        ]
        place = {label: number for number, label in enumerate(data.task.label_names)}
        target = np.zeros((len(examples), len(place)), dtype=bool)
        for row, example in enumerate(examples):
            target[row, [place[label] for label in example.labels]] = True
        sets.append(LabelledSet(name, ids, target, data.task.multi_label, data.fingerprint))
    return sets


def labelled_batch(
    sets: Sequence[LabelledSet], weights: Mapping[str, float], size: int, seed: int, step: int
) -> LabelledBatch:
    """Return the labelled texts of a step, a function of (seed, step) alone.

    Args:
        sets: to draw one from.
        weights: set name -> how often it is drawn, relative to the others.
        size: number of texts.
        seed: of the run.
        step: of the run.
    """
    random = np.random.default_rng((seed, step, 3))
    shares = np.array([weights[one.name] for one in sets])
    which = int(random.choice(len(sets), p=shares / shares.sum()))
    one = sets[which]
    rows = random.integers(0, len(one.ids), size)
    inputs = np.zeros((size, max(len(one.ids[row]) for row in rows)), dtype=np.int64)
    mask = np.zeros_like(inputs)
    for place, row in enumerate(rows):
        inputs[place, : len(one.ids[row])] = one.ids[row]
        mask[place, : len(one.ids[row])] = 1
    target = one.target[rows].astype(np.float32) if one.multi_label else one.target[rows].argmax(axis=1)
    return LabelledBatch(
        which, torch.from_numpy(inputs), torch.from_numpy(mask), torch.from_numpy(target), one.multi_label
    )
