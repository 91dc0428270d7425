"""Write a fine-tuned model as a folder, and refuse one whose graph does not answer as the model did."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from aftersales.classifiers.fit import Fitted
from aftersales.core.errors import ModelError
from aftersales.runtime.settings import GRAPH

MIN_AGREEMENT = 0.995


@dataclass(frozen=True)
class Parity:
    """How faithful an exported graph is: rows compared, share of equal decisions, largest difference of logits."""

    rows: int
    agreement: float
    max_difference: float


class _Logits(torch.nn.Module):
    """The model as the graph sees it: two tensors in, one out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


def write_graph(fitted: Fitted, folder: Path) -> None:
    """Write weights, tokenizer and ONNX graph into ``folder`` (no pickle: safetensors, JSON, ONNX)."""
    fitted.model.save_pretrained(folder)
    fitted.tokenizer.save_pretrained(folder)
    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "length"}
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated in favour of dynamo, whose graph drifted from the model (measured).
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(fitted.model),
            (example, example),
            str(folder / GRAPH),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def check_parity(trained: np.ndarray, exported: np.ndarray, decisions: Sequence[np.ndarray]) -> Parity:
    """Compare the trained model and its exported graph on the same rows.

    Args:
        trained: logits of the trained model, shape (rows, labels).
        exported: logits of the exported graph, same shape.
        decisions: labels given by either, boolean of the same shape.

    Raises:
        ModelError: fewer than 99.5 % of the rows get the same labels.
    """
    agreement = float((decisions[0] == decisions[1]).all(axis=1).mean())
    parity = Parity(len(trained), agreement, float(np.abs(trained - exported).max()))
    if agreement < MIN_AGREEMENT:
        raise ModelError(
            f"the exported graph gives other labels than the trained model on {1 - agreement:.1%} of {parity.rows} "
            f"rows (at most {1 - MIN_AGREEMENT:.1%} are allowed); the model is not written"
        )
    return parity
