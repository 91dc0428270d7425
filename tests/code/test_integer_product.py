"""Products of integers are exact at the limits this processor keeps, and the graph written by hand is ONNX."""

import numpy as np
import onnx
import pytest

from aftersales.runtime import integer_product
from aftersales.runtime.integer_product import IntegerProduct, factor_limit


@pytest.mark.parametrize("columns", [1, 2, 3, 64, 100, 1000])
@pytest.mark.parametrize("rows", [1, 5, 16, 33, 500])
def test_integer_products_are_exact_at_their_limits(rows, columns):
    rng = np.random.default_rng(rows + columns)
    limit = factor_limit()
    matrices = (rng.integers(-127, 128, (rows, columns)), np.full((rows, columns), 127))
    factors = np.stack([rng.integers(-limit, limit + 1, columns), np.full(columns, limit), np.full(columns, -limit)])
    for matrix in matrices:
        product = IntegerProduct(matrix.astype(np.int8))(factors.astype(np.int8))
        assert product.dtype == np.int32 and (product == factors @ matrix.T).all()


def test_the_written_graph_is_valid_onnx():
    matrix = np.arange(-60, 60, dtype=np.int8).reshape(40, 3)
    model = onnx.load_from_string(integer_product._graph(matrix, zero_point=128))
    onnx.checker.check_model(model, full_check=True)
    assert (onnx.numpy_helper.to_array(model.graph.initializer[0]) == matrix.T).all()
    assert onnx.numpy_helper.to_array(model.graph.initializer[1]) == 128
