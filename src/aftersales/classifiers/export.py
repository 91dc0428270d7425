"""Write a fine-tuned model as a folder, and refuse one whose graph does not answer as the model did."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PreTrainedModel

from aftersales.classifiers.fit import Fitted
from aftersales.core.errors import ModelError
from aftersales.runtime.settings import GRAPH

MIN_AGREEMENT = 0.995
Precision = Literal["float32", "int8"]


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


def write_graph(fitted: Fitted, folder: Path, precision: Precision = "float32") -> None:
    """Write weights, tokenizer and ONNX graph into ``folder`` (no pickle: safetensors, JSON, ONNX).

    Args:
        fitted: the trained model.
        folder: to write into.
        precision: of the graph's matrix products; the weights beside it keep 32 bits. With ``int8`` the ranges of
            activations are those of the batch, so a text's scores move a little with its neighbours. It is meant for
            processors with 8-bit dot products (VNNI, AMX); older ones may saturate, and answer otherwise.
    """
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
    if precision == "int8":
        _to_int8(folder / GRAPH, fitted.model)


def _to_int8(path: Path, model: PreTrainedModel) -> None:
    """Replace a graph by one whose matrix products are in 8 bits, but for those behind an activation function.

    What comes out of a GELU has a few large values, which leave the others too little of the range: these products cost
    more agreement than all others.
    """
    aside = path.with_suffix(".int8")
    kept = _behind_activations(onnx.load(path), model)
    logging.disable(logging.WARNING)  # it advises every user, on the root logger, to optimise the graph before
    try:
        quantize_dynamic(
            path,
            aside,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=kept,
        )
    finally:
        logging.disable(logging.NOTSET)
    aside.replace(path)


def _behind_activations(graph: onnx.ModelProto, model: PreTrainedModel) -> list[str]:
    """Return the names of the products that narrow the inner width of a feed-forward layer."""
    config = model.config
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)
    shapes = {constant.name: tuple(constant.dims) for constant in graph.graph.initializer}
    found = [
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul" and any(shapes.get(name, ())[:1] == (inner,) for name in node.input)
    ]
    if not found:
        raise ModelError(
            f"precision=int8: no feed-forward layer was found in a {config.model_type} encoder; use float32"
        )
    return found


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
            f"rows (at most {1 - MIN_AGREEMENT:.1%} are allowed); the model is not written: "
            "if `precision` is int8, set it to float32"
        )
    return parity
