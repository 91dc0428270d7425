"""A recommender's graph as ONNX, and the proof that it gives the scores of the trained model."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aftersales.core.errors import ModelError
from aftersales.corpora.histories import Histories
from aftersales.runtime.events import Inputs
from aftersales.runtime.recommender import Recommender

OPSET = 17
# Share of the scores' spread by which those of the exported graph may differ.
TOLERANCE = 1e-3


def write_graph(graph: nn.Module, path: Path, output: str = "scores") -> None:
    """Write the graph by the TorchScript-based exporter: the newer one was measured to drift.

    Args:
        graph: from the tensors of ``Inputs`` to scores (batch, n_items), or to something else of shape (batch, …).
        path: of the file to write.
        output: what the graph gives.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation of this exporter, and sizes that are constant by design
        history = torch.tensor([[0, 0, 1], [0, 1, 1]])
        axes = {0: "batch", 1: "length"}
        torch.onnx.export(
            graph,
            (history, history, history.float()),
            str(path),
            input_names=list(Inputs._fields),
            output_names=[output],
            dynamic_axes={**dict.fromkeys(Inputs._fields, axes), output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def check_export(folder: Path, histories: Histories, scores: NDArray[np.float32]) -> None:
    """Compare what an exported, sealed folder gives with what the trained model gave.

    Args:
        folder: of the exported model.
        histories: of some users.
        scores: of the trained model for these users, shape (users, n_items).

    Raises:
        ModelError: they differ by more than a thousandth of their spread, or are no numbers.
    """
    served = Recommender.load(folder)
    difference = float(np.abs(served.scores(histories.inputs(served.max_history)) - scores).max())
    if not difference <= TOLERANCE * float(scores.std()):  # so that NaN, of which no comparison is true, fails
        raise ModelError(
            f"the exported recommender gives other scores than the trained one (by up to {difference:.3g}); "
            "the model is not written"
        )
