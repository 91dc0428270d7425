"""Open an exported ONNX graph for inference on a CPU."""

from pathlib import Path

import onnxruntime

from aftersales.core.errors import ModelError


def open_graph(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session over the graph at ``path`` that uses ``threads`` threads.

    Raises:
        ModelError: the file is not a graph that this ONNX Runtime can run.
    """
    try:
        return session(str(path), threads)
    except Exception as error:  # onnxruntime raises a family of C++ exceptions without a common base
        raise ModelError(f"{path} cannot be opened as an ONNX graph: {error}; export the model again") from error


def session(graph: str | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session over a graph, a path or the graph itself, that uses ``threads`` threads of a CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
