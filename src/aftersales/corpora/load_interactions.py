"""From the ``data:`` section of a recommender's config to a split, and what may be recommended."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError
from aftersales.corpora.interaction_tables import Columns, read_interactions
from aftersales.corpora.interactions import Interactions, Split, leave_one_out
from aftersales.corpora.public.recommendation import load_public_interactions
from aftersales.corpora.synthetic_interactions import generate
from aftersales.corpora.time_split import global_time_split
from aftersales.runtime.events import EventKind

SYNTHETIC = "synthetic"
# Keys that say how a file of one's own is read, and keys that say which events of it count.
OF_OWN_FILES = {"items", "user_column", "item_column", "time_column", "kind_column", "kind_map"}
OF_EVENTS = {"history", "target", "split"}
OF_TIME_SPLIT = {"validation_days", "test_days"}


class InteractionsConfig(Config):
    """Which interactions to use.

    Attributes:
        source: ``synthetic``, or the path of a CSV, TSV, JSON lines or Parquet file of events.
        public: a public set with one target a user, with its published split, instead of ``source``.
        items: path of the catalogue that belongs to ``source``, if there is one.
        user_column, item_column, time_column, kind_column: names in ``source``; with null for ``kind_column`` every
            event is a purchase.
        kind_map: event kind as written in ``source`` -> ours.
        seed, users: of the synthetic interactions.
        history: event kinds that models look at; one item of the history for each.
        target: the event kind to be predicted, one of ``history``.
        split: ``leave_one_out``: the last two targets of each user; ``time``: one moment for all users, after which
            nothing is learned from, and each user's first target after it.
        validation_days, test_days: how long the two parts of ``split: time`` are, up to the last event.
    """

    source: str = Field(default=SYNTHETIC, min_length=1)
    public: str | None = None
    items: Path | None = None
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    kind_column: str | None = "kind"
    kind_map: dict[str, EventKind] = Field(default_factory=dict)
    seed: int = Field(default=1, ge=0)
    users: int = Field(default=2000, ge=1)
    history: tuple[EventKind, ...] = ("buy", "service")
    target: EventKind = "buy"
    split: Literal["leave_one_out", "time"] = "leave_one_out"
    validation_days: float = Field(default=30, gt=0)
    test_days: float = Field(default=30, gt=0)

    @field_validator("kind_map", mode="before")
    @classmethod
    def _kinds_are_text(cls, value: Any) -> Any:
        """Take YAML's 1 as the word that it is in a file of events."""
        return {str(key): kind for key, kind in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.public and self.source != SYNTHETIC:
            raise ValueError("give either data.source or data.public")
        if self.source == SYNTHETIC and (odd := self.model_fields_set & OF_OWN_FILES):
            raise ValueError(f"data.{min(odd)} goes with data.source=<file>, the file it describes")
        if self.public and (odd := self.model_fields_set & OF_EVENTS):
            raise ValueError(f"a public set says itself what is predicted from what; leave out data.{min(odd)}")
        if self.split != "time" and (odd := self.model_fields_set & OF_TIME_SPLIT):
            raise ValueError(f"data.{min(odd)} goes with data.split=time; add it, or leave out data.{min(odd)}")
        if self.kind_map and self.kind_column is None:
            raise ValueError("data.kind_map needs data.kind_column, whose words it maps")
        if self.target not in self.history:
            raise ValueError(f"data.target {self.target!r} is not in data.history ({', '.join(self.history)}); add it")
        return self

    @property
    def columns(self) -> Columns:
        """The column names as the reader wants them."""
        return Columns(self.user_column, self.item_column, self.time_column, self.kind_column, kinds=self.kind_map)

    @property
    def origin(self) -> str:
        """Where the rows come from, in the words of a model card."""
        if self.public:
            return f"the public set `{self.public}`"
        if self.source == SYNTHETIC:
            return (
                f"the synthetic interactions of `data/interactions`, seed {self.seed}: the figures say nothing about "
                "real customers"
            )
        return f"`{Path(self.source).name}`"


@dataclass(frozen=True)
class SplitInteractions:
    """What is learned from, what is predicted, and how it is judged.

    Attributes:
        split: the split; the model is chosen on what ``split.train`` teaches.
        final_train: what the model that is tested learns from.
        candidates: items that are ranked, shape (n_items,).
        exclude_history: whether items of the history are left out of the list.
        fingerprint: SHA-256 of the data.
    """

    split: Split
    final_train: Interactions
    candidates: NDArray[np.bool_]
    exclude_history: bool
    fingerprint: str


def load_interactions(config: InteractionsConfig, exclude_history: bool | None = None) -> SplitInteractions:
    """Generate the synthetic interactions, or read the user's own or a public set, and split them.

    Args:
        config: which interactions.
        exclude_history: leave items of the history out of the list; None: as published for a public set, else no.

    Raises:
        ConfigError: the public set is unknown or has several targets a user.
        DataError: a file is wrong, no user has enough events, or ``split: time`` leaves a part without events.
    """
    if config.public:
        return _public(config.public, exclude_history)
    if config.source == SYNTHETIC:
        interactions = generate(config.seed, config.users)
    else:
        interactions = read_interactions(
            Path(config.source).expanduser(), config.items and config.items.expanduser(), config.columns
        )
    split = _split(interactions.only(config.history), config)
    candidates = _candidates(interactions, split)
    return SplitInteractions(split, split.train, candidates, bool(exclude_history), interactions.fingerprint)


def _split(interactions: Interactions, config: InteractionsConfig) -> Split:
    if config.split == "leave_one_out":
        return leave_one_out(interactions, config.target)
    split = global_time_split(interactions, config.validation_days, config.test_days, config.target)
    return replace(split, validation=split.validation.firsts(), test=split.test.firsts())


def _public(name: str, exclude_history: bool | None) -> SplitInteractions:
    found = load_public_interactions(name)
    if found.split.test.offsets is not None:
        raise ConfigError(
            f"data.public: {name} has several targets a user, which the evidence of a run cannot hold; rank it with "
            "aftersales.evaluation.ranking.evaluate_ranking"
        )
    every = np.ones(found.interactions.n_items, dtype=bool)
    exclude = found.exclude_history if exclude_history is None else exclude_history
    return SplitInteractions(found.split, found.published_train, every, exclude, found.fingerprint)


def _candidates(interactions: Interactions, split: Split) -> NDArray[np.bool_]:
    """Return the items to rank: products alone where every target is one, so that services do not fill the list."""
    products = interactions.is_product
    targets = np.concatenate([split.validation.targets, split.test.targets])
    return products if products[targets - 1].all() else np.ones(len(products), dtype=bool)
