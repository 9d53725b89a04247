"""Quantized weights as arrays by name, and models that are a function of such."""

import numpy as np
import pytest

from lampq.core.quantizing.plain_arrays import to_arrays, weights_of
from lampq.core.quantizing.quantizer import quantize
from lampq.core.values.errors import RecordError


@pytest.mark.parametrize("bits", range(1, 9))
def test_arrays_give_the_values_back_in_exactly_b_bits_each(bits):
    rows = np.random.default_rng(bits).normal(size=(6, 21)).astype(np.float32)
    quantized = quantize(rows, bits)
    arrays = to_arrays("w", quantized, rows.shape)
    planes = sum(array.nbytes for name, array in arrays.items() if name.partition(":")[2].isdigit())
    assert planes == bits * -(-rows.size // 8)
    read = weights_of({"bias": np.ones(3), **arrays})
    assert list(read) == ["bias", "w"]
    np.testing.assert_array_equal(read["w"], quantized.dequantized())


@pytest.mark.parametrize("damage", ["w:form", "w:scale", "w:0", "shape", "width"])
def test_arrays_that_do_not_fit_together_name_the_weight(damage):
    rows = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    arrays = to_arrays("w", quantize(rows, 3), rows.shape)
    if damage == "shape":
        arrays["w:form"][3] += 1
    elif damage == "width":
        arrays["w:form"][0] = 9
    else:
        del arrays[damage]
    with pytest.raises(RecordError, match=r"weight w: .* do not fit|9 bits"):
        weights_of(arrays)
