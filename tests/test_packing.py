import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.quantizing.quantizer import quantize
from lampq.core.values import packing
from lampq.core.values.errors import RecordError


@given(bits=st.integers(1, 8), count=st.integers(0, 70), seed=st.integers(0, 2**32 - 1))
def test_codes_survive_packing_in_exactly_their_bits(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)
    planes = packing.pack(codes, bits)
    assert sum(plane.nbytes for plane in planes) == packing.payload_bytes(count, bits)
    np.testing.assert_array_equal(packing.unpack(planes, bits, count), codes)


@given(bits=st.integers(1, 7), codes=st.lists(st.integers(0, 127), min_size=1, max_size=20))
def test_planes_are_the_bit_strings_of_the_fields(bits, codes):
    """Oracle: each field of each code as a string of binary digits, joined from the first code up."""
    codes = [code % (1 << bits) for code in codes]
    padded = codes + [0] * (-len(codes) % 8)
    for field, plane in zip(packing.fields(bits), packing.pack(np.array(codes, np.uint8), bits), strict=True):
        stream = ""
        for code in padded:
            digits = format(code, f"0{bits}b")[::-1][field.low : field.low + field.width]
            stream += digits
        expected = [int(stream[start : start + 8][::-1], 2) for start in range(0, len(stream), 8)]
        assert plane.tolist() == expected


def test_golden_bytes():
    codes = np.arange(8, dtype=np.uint8)
    assert [p.tolist() for p in packing.pack(codes % 2, 1)] == [[0b10101010]]
    assert [p.tolist() for p in packing.pack(codes % 4, 2)] == [[0b11100100, 0b11100100]]
    assert [p.tolist() for p in packing.pack(codes, 3)] == [[0b01010000, 0b11111010], [0b10101010]]
    assert [p.tolist() for p in packing.pack(codes, 4)] == [[0x10, 0x32, 0x54, 0x76]]
    assert [p.tolist() for p in packing.pack(codes + 24, 5)] == [[0xCC, 0xDD, 0xEE, 0xFF], [0b10101010]]
    assert [p.tolist() for p in packing.pack(codes * 9, 6)] == [[0x20, 0x64, 0xB9, 0xFD], [0b11100100] * 2]
    assert [p.tolist() for p in packing.pack(codes * 18, 7)] == [
        [0x20, 0x64, 0xB9, 0xFD],
        [0b11100100] * 2,
        [0],
    ]
    assert [p.tolist() for p in packing.pack(codes + 248, 8)] == [list(range(248, 256))]


@pytest.mark.parametrize("bits", range(1, 9))
def test_fields_cover_every_bit_once(bits):
    covered = [bit for f in packing.fields(bits) for bit in range(f.low, f.low + f.width)]
    assert sorted(covered) == list(range(bits))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_digit_table_holds_the_digits_of_every_byte(width):
    table = packing.digit_table(width)
    weights = (1 << width) ** np.arange(8 // width)
    np.testing.assert_array_equal(table @ weights, np.arange(256))
    assert table.max() == (1 << width) - 1


def test_unpacked_codes_of_a_quantized_weight_give_its_values():
    rows = np.random.default_rng(0).normal(size=(5, 13)).astype(np.float32)
    for bits in range(1, 9):
        quantized = quantize(rows, bits)
        codes = packing.unpack(packing.pack(quantized.codes, bits), bits, rows.size).reshape(rows.shape)
        values = quantized.scale[:, None] * (quantized.step * codes.astype(np.float32) - quantized.offset)
        np.testing.assert_array_equal(values, quantized.dequantized())


def test_bad_input_is_refused():
    with pytest.raises(RecordError, match="needs more than 3 bits"):
        packing.pack(np.array([8], np.uint8), 3)
    with pytest.raises(RecordError, match="expected uint8"):
        packing.pack(np.array([1]), 3)
    for bits in (0, 9, -1):
        with pytest.raises(RecordError, match="1 to 8"):
            packing.fields(bits)
        with pytest.raises(RecordError, match="1 to 8"):
            packing.payload_bytes(8, bits)
    with pytest.raises(RecordError, match="not negative"):
        packing.payload_bytes(-1, 3)
    planes = packing.pack(np.zeros(9, np.uint8), 3)
    with pytest.raises(RecordError, match="17 codes of 3 bits"):
        packing.unpack(planes, 3, 17)
    with pytest.raises(RecordError, match="uint8 planes"):
        packing.unpack(planes[::-1], 3, 9)
