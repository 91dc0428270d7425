"""What a public set of interactions is, and how sets that are plain sequences of ids become one.

Sets without times get the place in the user's sequence instead (``Interactions.timed`` is False). Sets with one kind of
event call it ``buy``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pandas as pd

from aftersales.corpora.histories import Histories, Holdout
from aftersales.corpora.interactions import Interactions, Item, Split


@dataclass(frozen=True)
class PublicInteractions:
    """A public set.

    Attributes:
        interactions: every event whose place is known, held-out ones included: not to be learned from.
        split: the published test targets, and validation targets from what is published as training data.
        published_train: what published models learn from before they are tested; more than ``split.train`` where that
            gives sessions away for validation.
        exclude_history: whether published figures leave the items of the history out of the list.
    """

    interactions: Interactions
    split: Split
    published_train: Interactions
    exclude_history: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what is learned from and what is held out."""
        digest = sha256(self.published_train.fingerprint.encode())
        for holdout in (self.split.validation, self.split.test):
            for part in (holdout.histories.items, holdout.histories.offsets, holdout.targets, holdout.rows):
                digest.update(part.tobytes())
        return digest.hexdigest()


def of_sequences(
    items: Sequence[str],
    rows: Sequence[Sequence[str]],
    users: Sequence[str],
    attributes: Mapping[str, Sequence[object]] | None = None,
) -> Interactions:
    """Return interactions in which the place in a user's row serves as time.

    Args:
        items: the catalogue; ids serve as titles.
        rows: item ids of each user, oldest first.
        users: user ids.
        attributes: item id -> ids of its attributes, where the set has any.
    """
    lengths = [len(row) for row in rows]
    catalogue = pd.DataFrame([_item(name, attributes or {}) for name in items], columns=list(Item._fields))
    events = pd.DataFrame(
        {
            "user_id": np.repeat(np.array(users), lengths),
            "item_id": [item for row in rows for item in row],
            "kind": "buy",
            "timestamp": [place for length in lengths for place in range(length)],
            "detail": "",
        }
    )
    return Interactions.of_tables(catalogue, events, timed=False)


def _item(name: str, attributes: Mapping[str, Sequence[object]]) -> Item:
    return Item(name, title=name, attributes="|".join(map(str, attributes.get(name, ()))))


def numbered(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the ids in the order of their numbers."""
    return sorted({item for row in rows for item in row}, key=int)


def holdout_of(
    items: Sequence[str], rows: Sequence[Sequence[str]], targets: Sequence[str], users: Sequence[str] | None = None
) -> Holdout:
    """Return what follows each row of item ids.

    Args:
        items: the catalogue.
        rows: item ids before the target, oldest first.
        targets: item id after each row.
        users: user ids; the numbers of the rows when None.
    """
    index = {name: number for number, name in enumerate(items, 1)}
    histories = Histories.of([[index[item] for item in row] for row in rows], users)
    return Holdout(histories, np.array([index[item] for item in targets], dtype=np.int64))
