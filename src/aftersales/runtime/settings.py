"""What the runtime must know of an exported classifier: ``inference.json`` beside the graph."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from aftersales.core.errors import ModelError
from aftersales.core.files import write_text

SETTINGS = "inference.json"
GRAPH = "model.onnx"


class LabelInfo(BaseModel):
    """A label as answers show it."""

    name: str
    zh: str = ""
    group: str | None = None
    group_zh: str | None = None


class InferenceSettings(BaseModel):
    """Everything between a text and a decision that is not in the graph or the tokenizer.

    Attributes:
        task: the task's name; ``task_version`` and ``data_fingerprint`` say what the model learned from.
        kind: one label a text, or any number.
        labels: in the order of the graph's outputs.
        max_tokens: longer texts are cut here.
        lexical_weight: of the n-gram scores that are added to the logits; 0 when the folder has no lexical half.
        temperature: divides the logits (Guo et al. 2017, section 4.2).
        confidence_scale, confidence_shift: of the confidence of a multi-label answer, see ``decision.rescaled``.
        label_threshold: probability from which a label of a multi-label task is given.
        answer_threshold: confidence from which the decision is ``answer``.
        clarify_threshold: confidence from which it is ``clarify``; below, ``handoff``.
        out_of_scope: the label whose texts are handed to a human.
        handoff_labels: labels that always go to a human.
    """

    task: str
    task_version: int
    data_fingerprint: str
    kind: Literal["single_label", "multi_label"]
    labels: list[LabelInfo] = Field(min_length=2)
    max_tokens: int = Field(ge=1)
    lexical_weight: float = 0.0
    temperature: float = Field(default=1.0, gt=0)
    confidence_scale: float = Field(default=1.0, ge=0)
    confidence_shift: float = 0.0
    label_threshold: float = Field(default=0.5, gt=0, lt=1)
    answer_threshold: float = 0.0
    clarify_threshold: float = 0.0
    out_of_scope: str | None = None
    handoff_labels: list[str] = []

    def write(self, folder: Path) -> None:
        """Write the settings into a model folder."""
        write_text(folder / SETTINGS, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "InferenceSettings":
        """Read the settings of a model folder.

        Raises:
            ModelError: they are missing or unreadable.
        """
        try:
            return cls.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise ModelError(f"{folder / SETTINGS} cannot be read ({error}); export the model again") from None
