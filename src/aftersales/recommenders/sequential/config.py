"""Options of the sequential transformer."""

from typing import Literal

from pydantic import Field, model_validator

from aftersales.core.config import Config
from aftersales.recommenders.features import Feature
from aftersales.runtime.events import EventKind


class SequentialConfig(Config):
    """Options of ``Sequential``.

    Attributes:
        dimensions: width of item embeddings and layers.
        blocks: transformer layers.
        heads: attention heads a layer; divides ``dimensions``.
        dropout: on embeddings and on the output of each sub-layer.
        item_dropout: share of the events that are hidden from the model at a time while it learns.
        max_length: events of the history that are looked at; longer ones are learned from in several windows.
        kinds: tell what was done with an item.
        times: tell how long after each event the next one, or the request, came; for events with times. Requests
            without times are answered as such: a share of the histories is learned from without. In a test the request
            is in the second of the target, so that figures hold what that second tells (a further item of a basket
            comes at once); a run gives the figure without times beside it.
        features: what is known of items beside their events; items without events then have scores too.
        encoder: of the ``title``: ``embedded``, a folder or a hub name.
        id_dropout: with ``features``: share of the items of which the model sees only these at a time while it learns,
            so that it can rank items without events.
        targets: kinds of event that are predicted, the others are context; every kind when None.
        temperature: when given, scores are cosines divided by it instead of products.
        loss: ``cross_entropy`` over all items; ``sampled_softmax`` over drawn ones, for large catalogues; ``gbce``:
            binary, with drawn items as negatives.
        negatives: how many items are drawn a step, for all its events together.
        calibration: of ``gbce``: 0 takes scores for probabilities among the drawn items, 1 corrects for the drawing (t
            in the paper).
        epochs: passes over the training sequences, at most where there are validation figures to choose the best by.
        patience: stop when so many judged epochs have brought no better validation figure; never when None.
        judge_every: epochs between two validation figures.
        stop_after: stop after so many epochs, with the learning rates of ``epochs``.
        batch_size: sequences a step.
        learning_rate: of AdamW, at the peak.
        schedule: ``cosine``: up in a straight line over the first tenth of the steps, down to zero; ``constant``: up
            likewise over the first epoch, then constant.
        weight_decay: of AdamW.
        seed: of initialisation, dropout, order and drawing.
    """

    dimensions: int = Field(default=64, ge=1)
    blocks: int = Field(default=1, ge=1)
    heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    item_dropout: float = Field(default=0.0, ge=0, lt=1)
    max_length: int = Field(default=50, ge=2)
    kinds: bool = False
    times: bool = False
    features: tuple[Feature, ...] = ()
    encoder: str = "embedded"
    id_dropout: float = Field(default=0.2, ge=0, lt=1)
    targets: tuple[EventKind, ...] | None = Field(default=None, min_length=1)
    temperature: float | None = Field(default=None, gt=0)
    loss: Literal["cross_entropy", "sampled_softmax", "gbce"] = "cross_entropy"
    negatives: int = Field(default=256, ge=1)
    calibration: float = Field(default=0.75, ge=0, le=1)
    epochs: int = Field(default=20, ge=1)
    patience: int | None = Field(default=None, ge=1)
    judge_every: int = Field(default=1, ge=1)
    stop_after: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(default=0.05, ge=0)
    seed: int = Field(default=1, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _heads_divide(self) -> "SequentialConfig":
        if self.dimensions % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dimensions ({self.dimensions})")
        return self
