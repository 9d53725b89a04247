import io
import struct
import zlib

import numpy as np
import pytest
from data_samples import TINY, picture, read_one, save, save_classes, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lampq.adapters.data import (
    Preprocess,
    from_arrays,
    read_data,
)
from lampq.core.values.errors import AdapterError


@pytest.fixture
def classes(tmp_path):
    return save_classes(tmp_path / "images")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff"])
def test_formats(tmp_path, suffix):
    grey = np.full((8, 8), 120, dtype=np.uint8)
    save(tmp_path / f"a.{suffix}", grey)
    np.testing.assert_allclose(read_one(tmp_path), 120 / 255, atol=0.02)


def modes():
    rng = np.random.default_rng(5)
    rgb, alpha = picture(1), rng.integers(0, 256, (8, 8), dtype=np.uint8)
    luma = (rgb @ np.array([0.299, 0.587, 0.114]))[..., None]
    levels = rng.integers(0, 65536, (8, 8)).astype(np.uint16)
    palette = Image.fromarray(rgb).quantize(16)
    transparent = palette.copy()
    transparent.info["transparency"] = bytes(range(16))
    bits = rng.integers(0, 2, (8, 8)).astype(bool)
    cmyk = np.dstack([255 - rgb, np.zeros((8, 8), np.uint8)])
    return {
        "RGB": (Image.fromarray(rgb), "png", rgb),
        "RGBA": (Image.fromarray(np.dstack([rgb, alpha])), "png", rgb),
        "LA": (Image.fromarray(np.dstack([alpha, alpha]), "LA"), "png", alpha[..., None]),
        "L": (Image.fromarray(alpha), "png", alpha[..., None]),
        "1": (Image.fromarray(bits), "png", 255 * bits[..., None]),
        "P": (palette, "png", np.asarray(palette.convert("RGB"))),
        "P with transparency": (transparent, "png", np.asarray(palette.convert("RGB"))),
        "16 bit png": (Image.fromarray(levels), "png", (levels / 257.0)[..., None]),
        "16 bit tiff": (Image.fromarray(levels), "tif", (levels / 257.0)[..., None]),
        "CMYK": (Image.frombytes("CMYK", (8, 8), cmyk.tobytes()), "tif", rgb),
        "grey of RGB": (Image.fromarray(rgb), "png", luma),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_kind_of_pixel(tmp_path, mode):
    image, suffix, expected = modes()[mode]
    image.save(tmp_path / f"a.{suffix}")
    channels = 1 if mode == "grey of RGB" else 3
    found = read_one(tmp_path, spec(None, channels, 8, 8)) * 255
    np.testing.assert_allclose(
        found, np.broadcast_to(expected.transpose(2, 0, 1), (channels, 8, 8)), atol=0.51
    )


def test_alpha_reaches_a_model_of_four_channels(tmp_path):
    rgba = picture(2, channels=4)
    save(tmp_path / "a.png", rgba)
    found = read_one(tmp_path, spec(None, 8, 8, 4), preprocess=Preprocess(channel_order="BGR"))
    np.testing.assert_allclose(found, rgba[..., [2, 1, 0, 3]] / 255, atol=1e-6)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_respected(tmp_path, orientation, suffix):
    pixels = picture(3, height=6, width=10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"a.{suffix}", pixels, exif=exif)
    upright = TURNS[orientation](pixels)
    found = read_one(tmp_path, spec(None, 3, *upright.shape[:2]))
    np.testing.assert_allclose(found, upright.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "order", "axes", "shape"),
    [
        ("NCHW", "RGB", (2, 0, 1), (None, 3, 8, 8)),
        ("NCHW", "BGR", (2, 0, 1), (None, 3, 8, 8)),
        ("NHWC", "RGB", (0, 1, 2), (None, 8, 8, 3)),
        ("NHWC", "BGR", (0, 1, 2), (None, 8, 8, 3)),
    ],
)
def test_normalization_order_and_layout(tmp_path, layout, order, axes, shape):
    pixels = picture(4)
    save(tmp_path / "a.png", pixels)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    found = read_one(tmp_path, spec(*shape), preprocess=Preprocess(mean=mean, std=std, channel_order=order))
    seen = pixels if order == "RGB" else pixels[..., ::-1]
    expected = (seen.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(found, expected.transpose(axes), atol=1e-6)
    assert found.dtype == np.float32


def test_grey_input_without_a_channel_axis_and_raw_bytes(tmp_path):
    pixels = picture(4, channels=1)
    save(tmp_path / "a.png", pixels)
    np.testing.assert_allclose(read_one(tmp_path, spec(1, 8, 8)), pixels[..., 0] / 255, atol=1e-6)
    raw = read_one(tmp_path, spec(None, 8, 8, 3, dtype="uint8"))
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw, np.repeat(pixels, 3, axis=2))
    with pytest.raises(AdapterError, match="raw bytes"):
        read_one(tmp_path, spec(None, 8, 8, 3, dtype="uint8"), preprocess="imagenet")


def test_an_image_of_the_target_size_is_not_touched(tmp_path):
    pixels = picture(6, 224, 224)
    save(tmp_path / "a.png", pixels)
    record = Preprocess(crop_pct=0.875, interpolation="bicubic")
    np.testing.assert_allclose(
        read_one(tmp_path, spec(None, 3, 224, 224), preprocess=record),
        pixels.transpose(2, 0, 1) / 255,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("width", "height", "resized", "box"),
    [
        (400, 300, (341, 256), (58, 16, 282, 240)),
        (300, 400, (256, 341), (16, 58, 240, 282)),
        (256, 256, (256, 256), (16, 16, 240, 240)),
        (100, 50, (512, 256), (144, 16, 368, 240)),
    ],
)
def test_shortest_edge_and_centre_crop(tmp_path, width, height, resized, box):
    # Sizes and boxes worked out by hand from the rule of torchvision: short side 256, long side rounded down,
    # crop offset rounded half to even.
    image = Image.fromarray(picture(7, height, width))
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.resize(resized, Image.Resampling.BICUBIC).crop(box))
    found = read_one(tmp_path, spec(None, 224, 224, 3), preprocess=Preprocess(crop_pct=0.875))
    np.testing.assert_allclose(found, expected / 255, atol=1e-6)


def test_plain_resize_and_interpolation(tmp_path):
    image = Image.fromarray(picture(8, 30, 50))
    image.save(tmp_path / "a.png")
    record = Preprocess(resize="plain", interpolation="bilinear", crop_pct=0.8)
    expected = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR).crop((2, 2, 18, 18)))
    found = read_one(tmp_path, spec(None, 16, 16, 3), preprocess=record)
    np.testing.assert_allclose(found, expected / 255, atol=1e-6)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 24),
    st.integers(1, 24),
    st.floats(0.3, 1),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_any_image_becomes_any_size(height, width, target_height, target_width, crop_pct, keep):
    record = Preprocess(crop_pct=crop_pct, resize="shortest" if keep else "plain")
    data = from_arrays(
        np.full((1, height, width, 3), 51, np.uint8),
        input_spec=spec(None, 3, target_height, target_width),
        preprocess=record,
    )
    # A centre crop that ran over the edge would show as black.
    np.testing.assert_allclose(
        data.load().inputs["x"], np.full((1, 3, target_height, target_width), 0.2), atol=1e-6
    )


def huge_png():
    """A PNG whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def encoded(pixels, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image in a known format"),
        (b"not an image at all", "no image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "no image in a known format"),
        (encoded(picture(1, 64, 64), "PNG")[:2000], "truncated"),
        (encoded(picture(1, 64, 64), "JPEG")[:1000], "truncated"),
        (huge_png(), "pixels"),
        (encoded(np.zeros((8, 8), np.int32), "TIFF"), "32-bit"),
        (encoded(np.zeros((1, 30000), np.uint8), "PNG"), "long and thin"),
    ],
)
def test_a_bad_image_is_named(classes, content, message):
    bad = classes / "cat" / "bad.png"
    bad.write_bytes(content)
    data = read_data(classes, input_spec=spec(None, 3, 96, 96))
    with pytest.raises(AdapterError, match=message) as caught:
        list(data.batches(2))
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes_is_named(classes):
    data = read_data(classes, input_spec=TINY)
    (classes / "dog" / "2.png").unlink()
    with pytest.raises(AdapterError, match=r"dog.2\.png"):
        data.load()


@given(
    st.binary(max_size=12),
    st.integers(0, 400),
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
)
@settings(max_examples=150, deadline=None)
def test_damaged_images_never_give_another_error(tmp_path_factory, damage, place, kind):
    content = bytearray(encoded(picture(1, 16, 16), kind))
    place %= len(content)
    content[place : place + len(damage)] = damage
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.png").write_bytes(bytes(content))
    data = read_data(folder, input_spec=TINY)
    try:
        assert np.isfinite(data.load().inputs["x"]).all()
    except AdapterError as err:
        assert "a.png" in str(err)
