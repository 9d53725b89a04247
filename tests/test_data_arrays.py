import io
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from data_samples import TINY, picture, read_one, save, save_classes, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.adapters.data import (
    Preprocess,
    from_arrays,
    read_data,
)
from lampq.core.values.errors import AdapterError


@pytest.fixture
def classes(tmp_path):
    return save_classes(tmp_path / "images")


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_floats_are_taken_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3, 8, 8))
    path = write_npz(tmp_path / "d.npz", x=x, y=np.array([0, 1, 2, 1, 0], dtype=np.uint8))
    data = read_data(path, input_spec=TINY, preprocess="imagenet")
    inputs, labels = data.load()
    np.testing.assert_array_equal(inputs, x.astype(np.float32))
    assert labels.tolist() == [0, 1, 2, 1, 0]
    assert labels.dtype == np.int64
    assert data.preprocess is None
    assert data.kind == "arrays"


def test_floats_of_the_other_layout_are_turned(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(from_arrays(x, input_spec=TINY).load().inputs["x"], x.transpose(0, 3, 1, 2))
    grey = x[..., 0]
    np.testing.assert_array_equal(
        from_arrays(grey, input_spec=spec(1, 1, 8, 8)).load().inputs["x"], grey[:, None]
    )
    np.testing.assert_array_equal(
        from_arrays(grey, input_spec=spec(1, 8, 8, 1)).load().inputs["x"], grey[..., None]
    )


def test_token_ids_keep_their_type():
    ids = np.arange(12).reshape(3, 4)
    data = from_arrays(ids.astype(np.int32), input_spec=spec(None, None, dtype="int64"))
    assert data.load().inputs["x"].dtype == np.int64
    np.testing.assert_array_equal(data.load().inputs["x"], ids)


@pytest.mark.parametrize(
    ("shape", "model"),
    [((4, 8, 8), (None, 3, 8, 8)), ((4, 8, 8, 3), (None, 3, 8, 8)), ((4, 3, 8, 8), (None, 8, 8, 3))],
)
def test_uint8_arrays_are_preprocessed(shape, model):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = x[..., None] if x.ndim == 3 else x if x.shape[3] == 3 else x.transpose(0, 2, 3, 1)
    expected = np.broadcast_to((images / 255 - 0.5) / 0.25, (4, 8, 8, 3))
    record = Preprocess(mean=(0.5,), std=(0.25,))
    data = from_arrays(x, input_spec=spec(*model), preprocess=record)
    found = data.load().inputs["x"]
    np.testing.assert_allclose(found if model[3] == 3 else found.transpose(0, 2, 3, 1), expected, atol=1e-6)
    assert data.preprocess.size == (8, 8)


@pytest.mark.parametrize(("have", "want"), [(1, 3), (1, 4), (3, 1), (3, 4), (4, 1), (4, 3)])
def test_channels_of_arrays_and_files_are_converted_alike(tmp_path, have, want):
    pixels = picture(9, channels=have)
    save(tmp_path / "a.png", pixels)
    model = spec(None, 8, 8, want)
    np.testing.assert_array_equal(
        from_arrays(pixels[None], input_spec=model).load().inputs["x"][0], read_one(tmp_path, model)
    )


def test_resized_arrays_and_files_are_alike(tmp_path):
    pixels = picture(10, 30, 20)
    save(tmp_path / "a.png", pixels)
    found = from_arrays(pixels[None], input_spec=TINY, preprocess="imagenet").load().inputs["x"][0]
    np.testing.assert_array_equal(found, read_one(tmp_path, preprocess="imagenet"))


def test_the_size_of_arrays_serves_a_model_of_any_size():
    x = np.zeros((2, 6, 10, 3), np.uint8)
    assert from_arrays(x, input_spec=spec(None, 3, None, None)).load().inputs["x"].shape == (2, 3, 6, 10)


NAN = np.zeros((70, 3, 8, 8), np.float32)
NAN[66, 1, 2, 3] = np.nan
GOOD = np.zeros((3, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 3, 9, 8))}, r"3x3x9x8 .*\?x3x8x8"),
        ({"x": np.zeros((3, 7))}, r"3x7 .*\?x3x8x8"),
        ({"x": NAN}, "sample 66"),
        ({"x": GOOD + np.float64(1e300)}, "sample 0"),
        ({"x": GOOD.astype(np.int64)}, "int64.*uint8 images"),
        ({"x": GOOD.astype(complex)}, "complex128"),
        ({"x": np.array(3.0)}, "single value"),
        ({"x": np.zeros((0, 3, 8, 8), np.float32)}, "no samples"),
        ({"x": np.zeros((0, 8, 8, 3), np.uint8)}, "no samples"),
        ({"x": np.zeros((4, 8, 8, 5), np.uint8)}, "no grey, RGB"),
        ({"x": np.zeros((4, 8), np.uint8)}, "no grey, RGB"),
        ({"images": GOOD}, "holds images; save the samples as x"),
        ({"x": np.array([{}], dtype=object)}, "Python objects"),
        ({"x": GOOD, "y": np.array([0, 1])}, "one label each"),
        ({"x": GOOD, "y": np.array([[0], [1], [2]])}, "one label each"),
        ({"x": GOOD, "y": np.array([0.0, 1.0, 2.0])}, "float64"),
        ({"x": GOOD, "y": np.array([0, -1, 2])}, "-1 is negative"),
        ({"x": GOOD, "y": np.array([0, 1, 2]), "classes": np.array(["a", "b"])}, "label 2 has no class"),
        ({"x": GOOD, "y": np.array([0, 1, 2]), "classes": np.array([1, 2, 3])}, "list of strings"),
        ({"x": GOOD, "classes": np.array(["a", "b"])}, "no labels"),
    ],
)
def test_npz_files_that_are_refused(tmp_path, arrays, message):
    path = write_npz(tmp_path / "d.npz", **arrays)
    with pytest.raises(AdapterError, match=message) as caught:
        read_data(path, input_spec=TINY)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x", b"bytes")
    with pytest.raises(AdapterError, match="x is no array"):
        read_data(tmp_path / "d.npz", input_spec=TINY)


def test_an_array_too_thin_to_resize_is_named():
    thin = np.zeros((3, 1, 30000), np.uint8)
    with pytest.raises(AdapterError, match="sample 0 of x: 30000x1 is too long and thin"):
        from_arrays(thin, input_spec=spec(None, 3, 96, 96)).load()


def test_token_ids_beyond_the_type():
    with pytest.raises(AdapterError, match="beyond"):
        from_arrays(np.array([[300, -1]]), input_spec=spec(None, 2, dtype="uint8"))


def test_missing_and_damaged_npz(tmp_path):
    with pytest.raises(AdapterError, match="no such file"):
        read_data(tmp_path / "none.npz", input_spec=TINY)
    path = tmp_path / "d.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(AdapterError, match="not a readable"):
        read_data(path, input_spec=TINY)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.booleans())
@settings(max_examples=200, deadline=None)
def test_damaged_npz_never_gives_another_error(tmp_path_factory, place, damage, cut):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.ones((4, 3, 8, 8), np.float32), y=np.arange(4))
    content = bytearray(buffer.getvalue())
    place %= len(content)
    content = content[:place] if cut else content[:place] + damage + content[place + len(damage) :]
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(bytes(content))
    try:
        assert len(read_data(path, input_spec=TINY).load().inputs["x"]) == 4
    except AdapterError as err:
        assert "damaged.npz" in str(err)


def test_an_archive_that_expands_beyond_reason(tmp_path):
    path = tmp_path / "d.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (6 << 30,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1 << 20))
    # The directory's sizes are what a reader believes.
    content = path.read_bytes()
    size = struct.pack("<I", len(header.getvalue()) + (1 << 20))
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 0xFFFFFFF0)))
    with pytest.raises(AdapterError, match="expand to 4,294,967,280, more than 100 times"):
        read_data(path, input_spec=TINY)


WITHOUT_PILLOW = """
import sys, numpy as np
sys.modules["PIL"] = None
from lampq.adapters.data import from_arrays, read_data
from lampq.core.values.errors import MissingExtraError
from lampq.core.values.input_spec import InputSpec
spec = InputSpec(name="x", shape=(None, 3, 8, 8))
pixels = np.zeros((2, 8, 8), np.uint8)
assert from_arrays(pixels, input_spec=spec).load().inputs["x"].shape == (2, 3, 8, 8)
for attempt in (lambda: read_data(sys.argv[1], input_spec=spec),
                lambda: from_arrays(pixels[:, :4], input_spec=spec).load()):
    try:
        attempt()
    except MissingExtraError as err:
        assert "lampq[images]" in str(err)
    else:
        raise SystemExit("no error")
"""


def test_arrays_need_no_pillow_and_folders_say_so(classes):
    subprocess.run([sys.executable, "-c", WITHOUT_PILLOW, str(classes)], check=True, timeout=60)
