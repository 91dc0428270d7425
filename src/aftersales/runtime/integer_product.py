"""Products of 8-bit integers, exact: the one operation that numpy is slow at and ONNX Runtime is fast at.

The graph is written here byte by byte, as ``onnx`` is a library for training and serving runs without it.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from aftersales.runtime.graph import session

MATRIX_LIMIT = 127
MOST_COLUMNS = 1 << 16  # 255 x 127 x columns must stay below 2^31
_UINT8, _INT8, _INT32 = 2, 3, 6  # onnx.proto3, TensorProto.DataType
_OPSET, _IR_VERSION = 17, 8


class IntegerProduct:
    """Products with one matrix of integers; safe to share between threads.

    Args:
        matrix: int8 of shape (rows, columns), each from -127 to 127.
    """

    def __init__(self, matrix: NDArray[np.int8]) -> None:
        self._limit = factor_limit()
        self._session = session(_graph(matrix, zero_point=self._limit + 1))

    def __call__(self, factors: NDArray[np.int8]) -> NDArray[np.int32]:
        """Return ``factors @ matrix.T``, shape (queries, rows).

        Args:
            factors: int8 of shape (queries, columns), no number beyond ``factor_limit``.
        """
        shifted = (factors.astype(np.int16) + (self._limit + 1)).astype(np.uint8)
        product: NDArray[np.int32] = self._session.run(["product"], {"factors": shifted})[0]
        return product


@cache
def factor_limit() -> int:
    """Return up to which absolute value factors may go so that no product is wrong on this processor: 127 or 63.

    x86 processors without VNNI add pairs of products in 16 bits, which saturates silently beyond 127 x 127 x 2.
    The operator's definition does not allow that, so it is tried out rather than looked up.
    """
    columns = 64
    largest = np.full((16, columns), MATRIX_LIMIT, dtype=np.int8)
    probe: onnxruntime.InferenceSession = session(_graph(largest, zero_point=0))
    (product,) = probe.run(["product"], {"factors": np.full((1, columns), 255, dtype=np.uint8)})
    return 127 if (product == 255 * MATRIX_LIMIT * columns).all() else 63


def _graph(matrix: NDArray[np.int8], zero_point: int) -> bytes:
    """Return an ONNX model of one MatMulInteger: factors (any, columns), less the zero point, times the matrix."""
    rows, columns = matrix.shape
    node = _message([(1, b"factors"), (1, b"matrix"), (1, b"zero"), (2, b"product"), (4, b"MatMulInteger")])
    graph = _message(
        [
            (1, node),
            (2, b"product"),
            (5, _tensor(b"matrix", _INT8, (columns, rows), np.ascontiguousarray(matrix.T).tobytes())),
            (5, _tensor(b"zero", _UINT8, (), bytes([zero_point]))),
            (11, _value(b"factors", _UINT8, columns)),
            (12, _value(b"product", _INT32, rows)),
        ]
    )
    opset = _message([(1, b""), (2, _OPSET)])
    return _message([(1, _IR_VERSION), (7, graph), (8, opset)])


def _tensor(name: bytes, kind: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return _message([*((1, size) for size in shape), (2, kind), (8, name), (9, values)])


def _value(name: bytes, kind: int, columns: int) -> bytes:
    shape = _message([(1, _message([(2, b"queries")])), (1, _message([(1, columns)]))])
    return _message([(1, name), (2, _message([(1, _message([(1, kind), (2, shape)]))]))])


def _message(fields: Iterable[tuple[int, int | bytes]]) -> bytes:
    """Encode a protocol-buffer message: field numbers with whole numbers or with bytes (text, nested messages)."""
    parts = []
    for number, value in fields:
        if isinstance(value, bytes):
            parts += [_varint(number << 3 | 2), _varint(len(value)), value]
        else:
            parts += [_varint(number << 3), _varint(value)]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
