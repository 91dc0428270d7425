"""The configuration of pre-training."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from aftersales.core.config import Config
from aftersales.core.errors import nearest
from aftersales.core.paths import project_root
from aftersales.corpora.public import ADAPTERS
from aftersales.encoders.architecture import Architecture
from aftersales.tasks import find_task

Weight = Annotated[float, Field(gt=0)]


class Corpus(Config):
    """Text files, one document a line, and the training texts of tasks; the numbers say how often each is drawn.

    Attributes:
        folder: of the files; a relative one begins at the project.
        files: path below the folder -> weight.
        tasks: name -> weight.
    """

    folder: Path
    files: dict[str, Weight] = Field(min_length=1)
    tasks: dict[str, Weight] = {}

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if both := sorted(self.files.keys() & {_rows_of(name) for name in self.tasks}):
            raise ValueError(f"files and tasks both give {both[0]!r}; rename the file")
        return self

    @property
    def paths(self) -> dict[str, Path]:
        """Every source by the name under which it is counted."""
        folder = project_root() / self.folder.expanduser()
        files = {name: folder / name for name in self.files}
        return files | {_rows_of(name): find_task(name) / "train.jsonl" for name in self.tasks}

    @property
    def weights(self) -> dict[str, float]:
        """How often each source is drawn, in the order of ``paths``."""
        return self.files | {_rows_of(name): weight for name, weight in self.tasks.items()}


def _rows_of(task: str) -> str:
    return f"{task}/train.jsonl"


class Labelled(Config):
    """Public labelled sets that are learned beside the text.

    Attributes:
        sets: public set with parts of its own -> how often it is drawn.
        weight: of the labels' loss.
        batch_size: labelled texts a step.
        length: tokens of one at most.
    """

    sets: dict[str, Weight] = Field(min_length=1)
    weight: float = Field(default=0.5, gt=0)
    batch_size: int = Field(default=32, ge=1)
    length: int = Field(default=64, ge=8)

    @field_validator("sets")
    @classmethod
    def _have_parts(cls, sets: dict[str, float]) -> dict[str, float]:
        if wrong := sorted(sets.keys() - ADAPTERS.keys()):
            raise ValueError(f"{wrong[0]!r} is not a public set with parts of its own{nearest(wrong[0], [*ADAPTERS])}")
        return sets


class PretrainConfig(Config):
    """Everything a pre-training run depends on.

    Attributes:
        start_from: an encoder to go on from; its vocabulary stays.
        guarded: public sets whose validation and test texts are not learned from (all texts, where it has folds).
        whole_words: hide whole words.
        decay: last steps, over which the learning rate falls to zero.
        bag_of_words: weight of the loss that makes [CLS] sum up its row.
        bag_of_words_from: first step of that loss.
    """

    recipe: str
    corpus: Corpus
    out: Path
    architecture: Architecture = Architecture()
    start_from: str | None = None
    labelled: Labelled | None = None
    guarded: list[str] = []
    objective: Literal["mlm", "electra"] = "mlm"
    whole_words: bool = False
    steps: int = Field(ge=1)
    warmup: int = Field(default=500, ge=0)
    decay: int = Field(default=4000, ge=0)
    batch_size: int = Field(default=32, ge=1)
    sequence_length: int = Field(default=128, ge=8)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    bag_of_words: float = Field(default=0.0, ge=0)
    bag_of_words_from: int = Field(default=0, ge=0)
    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=2, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup + self.decay > self.steps:
            raise ValueError(
                f"warmup={self.warmup} and decay={self.decay} are more than steps={self.steps} together; "
                f"set for example warmup={self.steps // 10} decay={self.steps // 4}"
            )
        positions = self.architecture.positions
        lengths = {
            "sequence_length": self.sequence_length,
            "labelled.length": self.labelled.length if self.labelled else 0,
        }
        for key, length in lengths.items():
            if length > positions:
                raise ValueError(f"{key}={length} is longer than architecture.positions={positions}; lower it")
        return self
