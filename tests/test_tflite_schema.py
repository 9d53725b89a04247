"""The schema and the codec against the classes that ai-edge-litert generates, and against damage."""

import flatbuffers
import numpy as np
import pytest
import tflite_schema_source
from ai_edge_litert import schema_py_generated as generated
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_models import NAMES, fixture

from lampq.adapters.tflite.flatbuffer import Record, blob_bytes, decode, encode, padded_table_bytes
from lampq.adapters.tflite.schema import schema
from lampq.core.values.errors import AdapterError


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def assert_same(record, other):
    """A record of ours against an object of the generated classes, field by field, all the way down."""
    names = {tflite_schema_source.snake(name): name for name in vars(other)}
    for field in schema().tables[record.table]:
        if field.name == "-":
            continue
        mine, theirs = getattr(record, field.name), getattr(other, names[field.name])
        if field.kind in ("table", "union"):
            assert (mine is None) == (theirs is None), (record.table, field.name)
            if mine is not None:
                assert_same(mine, theirs)
        elif field.kind == "vector" and field.element in schema().tables:
            assert len(mine or []) == len(theirs or []), (record.table, field.name)
            for one, another in zip(mine or [], theirs or [], strict=True):
                assert_same(one, another)
        elif field.kind == "vector":
            np.testing.assert_array_equal(() if mine is None else mine, () if theirs is None else theirs)
        else:
            assert mine == theirs, (record.table, field.name)


def unpacked(data):
    return generated.ModelT.InitFromObj(generated.Model.GetRootAsModel(data, 0))


def test_the_schema_is_that_of_the_installed_runtime():
    for name, fields in tflite_schema_source.tables().items():
        mine = [(f.name, f.element, f.default) for f in schema().tables[name]]
        theirs = []
        for field, kind in fields:
            kind, _, default = kind.partition("=")
            element = kind.strip("[]<>")
            number = None
            if kind in "?bBhHiIqQfd" and kind:
                number = float(default or 0) if kind in "fd" else int(default or 0)
            theirs.append((field, element, number))
        assert mine == theirs, name
    for name in (*tflite_schema_source.UNIONS, "TensorType", "BuiltinOperator"):
        assert schema().enums[name] == tflite_schema_source.enum(name)
    for union in tflite_schema_source.UNIONS:
        assert set(schema().enums[union].values()) - {"NONE"} <= set(schema().tables)


@pytest.mark.parametrize("name", NAMES)
def test_decoding_agrees_with_the_generated_classes(name):
    data = fixture(name).read_bytes()
    assert_same(decode(data), unpacked(data))


@pytest.mark.parametrize("name", NAMES)
def test_encoding_agrees_with_the_generated_classes(name):
    record = decode(fixture(name).read_bytes())
    pieces = encode(record)
    data = b"".join(pieces)
    assert_same(record, unpacked(data))
    assert data[4:8] == b"TFL3"
    # The tables, then one slot for each piece of data: the sum is exact.
    blobs = [memoryview(piece).nbytes for piece in pieces[2::3]]
    assert len(data) == padded_table_bytes(len(pieces[0])) + sum(blob_bytes(count) for count in blobs)
    assert sum(blobs) >= sum(len(b.data) for b in record.buffers if b.data is not None)


def test_data_is_aligned_for_the_runtime():
    data = b"".join(encode(decode(fixture("vit").read_bytes())))
    start = np.frombuffer(data, np.uint8).ctypes.data
    for buffer in decode(data).buffers:
        if buffer.data is not None:
            assert (buffer.data.ctypes.data - start) % 16 == 0


def test_one_array_used_twice_is_stored_once():
    zeros = np.zeros(1000, np.int64)
    scale = np.ones(1000, np.float32)

    def model(*points):
        tensors = [
            Record("Tensor", quantization=Record("QuantizationParameters", scale=scale, zero_point=p))
            for p in points
        ]
        return b"".join(encode(Record("Model", subgraphs=[Record("SubGraph", tensors=tensors)])))

    shared, separate = model(zeros, zeros), model(zeros, zeros.copy())
    assert len(separate) - len(shared) == blob_bytes(8000)
    for tensor in unpacked(shared).subgraphs[0].tensors:
        np.testing.assert_array_equal(tensor.quantization.zeroPoint, zeros)


records = st.builds(
    Record,
    st.just("Operator"),
    opcode_index=st.integers(0, 2**32 - 1),
    inputs=st.lists(st.integers(-1, 2**31 - 1), max_size=5).map(lambda v: np.array(v, np.int32)),
    large_custom_options_offset=st.integers(0, 2**64 - 1),
    debug_metadata_index=st.integers(-(2**31), 2**31 - 1),
    custom_options=st.binary(max_size=9).map(lambda v: np.frombuffer(v, np.uint8)),
    builtin_options_type=st.just(schema().value("BuiltinOptions", "AddOptions")),
    builtin_options=st.builds(
        Record,
        st.just("AddOptions"),
        fused_activation_function=st.integers(-128, 127),
        pot_scale_int16=st.booleans(),
    ),
)


@given(st.lists(records, max_size=4), st.binary(max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_operators_survive_the_round_trip(operators, name):
    model = Record("Model", subgraphs=[Record("SubGraph", operators=operators, name=name)])
    data = b"".join(encode(model))
    found, theirs = decode(data).subgraphs[0], unpacked(data).subgraphs[0]
    assert found.name == theirs.name == name
    for given_, read, other in zip(operators, found.operators, theirs.operators, strict=True):
        assert_same(given_, other)
        assert_same(read, other)


def bomb(width):
    """A file of some 8 * width bytes whose tables unfold into width^2."""
    builder = flatbuffers.Builder(1024)
    generated.TensorStart(builder)
    tensor = generated.TensorEnd(builder)
    generated.SubGraphStartTensorsVector(builder, width)
    for _ in range(width):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    generated.SubGraphStart(builder)
    generated.SubGraphAddTensors(builder, tensors)
    subgraph = generated.SubGraphEnd(builder)
    generated.ModelStartSubgraphsVector(builder, width)
    for _ in range(width):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    generated.ModelStart(builder)
    generated.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(generated.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_small_file_that_unfolds_into_millions_of_tables_is_refused():
    assert len(decode(bomb(50)).subgraphs) == 50
    with pytest.raises(AdapterError, match="tables"):
        decode(bomb(3000))


@pytest.mark.parametrize("count", [1000, 2**20, 2**32 - 1])
def test_a_vector_that_claims_more_than_the_file_holds_is_refused(count):
    data = bytearray(b"".join(encode(Record("Model", subgraphs=[Record("SubGraph", name=b"n" * 77)]))))
    at = data.index(np.uint32(77).tobytes())
    data[at : at + 4] = np.uint32(count).tobytes()
    with pytest.raises(AdapterError, match="beyond the end"):
        decode(bytes(data))


@pytest.mark.parametrize("length", [0, 4, 7, 8, 20])
def test_a_file_cut_off_at_its_head_is_refused(length):
    with pytest.raises(AdapterError):
        decode(fixture("vit").read_bytes()[:length])
