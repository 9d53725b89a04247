"""From an image file or an array of pixels to one sample of a model's input."""

from __future__ import annotations

import contextlib
import io
import math
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.adapters.data.preprocess import INTERPOLATIONS, Preprocess
from lampq.core.values.bounded import read_bytes
from lampq.core.values.errors import AdapterError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")

# Only these decoders run, whatever a file's name says: some of the others start external programs.
_DECODERS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Decoding takes up to 12 bytes a pixel, whatever the file's own size.
_MAX_PIXELS = 50_000_000
# Images above this are decoded one at a time, whatever the number of threads.
_LARGE_PIXELS = 4_000_000
_MAX_FILE_BYTES = 1 << 27
# Of EXIF: the tag, and the values from which on width and height change places.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTransform:
    """A `Preprocess` made ready to run.

    Attributes:
        height: Of the result, in pixels.
        width: Likewise.
        channels: 1, 3 or 4.
        resized: (height, width) of the image before the crop; with `keep_ratio` the part it must cover.
        keep_ratio: Whether the aspect ratio is kept.
        filter: Pillow's number of the resampling filter.
        layout: `NCHW`, `NHWC` or `NHW`.
        order: Index of the pixel channel that becomes each model channel.
        gain: Factor per channel, float32, shape (channels,).
        offset: Addend per channel after the factor, float32, shape (channels,).
        dtype: Element type of the result: float32, or uint8 for a model that takes raw bytes.
        turn: Held while a large image is decoded and resized: memory has room for one.
    """

    height: int
    width: int
    channels: int
    resized: tuple[int, int]
    keep_ratio: bool
    filter: int
    layout: str
    order: tuple[int, ...]
    gain: np.ndarray
    offset: np.ndarray
    dtype: np.dtype[Any]
    turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_preprocess(cls, record: Preprocess, *, dtype: str = "float32") -> ImageTransform:
        """Prepare a record whose size, channels and layout are known (`Preprocess.for_input`).

        Args:
            record: The complete record.
            dtype: `float32`, or `uint8` to get the resized pixels themselves.
        """
        if record.size is None or record.channels is None or record.layout is None:
            raise AdapterError("preprocessing without size, channels or layout; call for_input first")
        height, width = record.size
        # The nudge undoes the rounding of ratios like 224 / 232, which would cost a pixel.
        cover = tuple(math.floor(side / record.crop_pct + 1e-6) for side in record.size)
        mean, std = (
            np.broadcast_to(v, record.channels).astype(np.float64) for v in (record.mean, record.std)
        )
        order = tuple(range(record.channels))
        if record.channel_order == "BGR" and record.channels > 1:
            order = (2, 1, 0, 3)[: record.channels]
        return cls(
            height=height,
            width=width,
            channels=record.channels,
            resized=(cover[0], cover[1]),
            keep_ratio=record.resize == "shortest",
            filter=INTERPOLATIONS.index(record.interpolation),
            layout=record.layout,
            order=order,
            gain=(record.scale / std).astype(np.float32),
            offset=(-mean / std).astype(np.float32),
            dtype=np.dtype(dtype),
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the axis of samples."""
        sides = {"H": self.height, "W": self.width, "C": self.channels}
        return tuple(sides[axis] for axis in self.layout[1:])

    def from_bytes(self, content: bytes, out: np.ndarray) -> None:
        """Decode an image file's content and write the sample to `out`, of `sample_shape`."""
        image = _opened(content)
        large = image.width * image.height > _LARGE_PIXELS
        with self.turn if large else contextlib.nullcontext():
            pixels = np.asarray(self._fit(_decoded(image, _MODES[self.channels])))
        self._write(pixels, out)

    def from_pixels(self, pixels: np.ndarray, out: np.ndarray) -> None:
        """Write the sample made of uint8 pixels, shape (H, W, 1, 3 or 4); Pillow only resizes."""
        pixels = _to_channels(pixels, self.channels)
        if pixels.shape[:2] != (self.height, self.width):
            image = pillow().fromarray(pixels[:, :, 0] if self.channels == 1 else pixels)
            pixels = np.asarray(self._fit(image))
        self._write(pixels, out)

    def _fit(self, image: Image) -> Image:
        """Resize and crop the centre, with the rounding that torchvision and timm use."""
        if image.size == (self.width, self.height):
            return image
        width, height, left, top = self.placement(*image.size)
        if width * height > _MAX_PIXELS:
            raise ValueError(f"{image.size[0]}x{image.size[1]} is too long and thin to resize")
        image = image.resize((width, height), self.filter)
        return image.crop((left, top, left + self.width, top + self.height))

    def placement(self, width: int, height: int) -> tuple[int, int, int, int]:
        """What becomes of an image of some size: width and height that it is resized to, left and top of the crop."""
        if (height, width) == (self.height, self.width):
            return width, height, 0, 0
        cover_height, cover_width = self.resized
        if not self.keep_ratio:
            width, height = cover_width, cover_height
        elif cover_width * height >= cover_height * width:
            width, height = cover_width, height * cover_width // width
        else:
            width, height = width * cover_height // height, cover_height
        return width, height, round((width - self.width) / 2), round((height - self.height) / 2)

    def _write(self, pixels: np.ndarray, out: np.ndarray) -> None:
        pixels = pixels.reshape(self.height, self.width, self.channels)
        planes = {"NCHW": out, "NHWC": np.moveaxis(out, -1, 0), "NHW": out[None]}[self.layout]
        for channel, source in enumerate(self.order):
            if self.dtype == np.uint8:
                planes[channel] = pixels[:, :, source]
            else:
                np.multiply(pixels[:, :, source], self.gain[channel], out=planes[channel])
                planes[channel] += self.offset[channel]


def pillow() -> Any:
    """Pillow's Image module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from PIL import Image
    except ImportError as err:
        raise MissingExtraError("Pillow", "images", err) from err
    # Pillow warns of large images, on lines of its own; they are refused here. Threads forbid to do so for a while.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def read_file(path: Path) -> bytes:
    """Content of an image file.

    Raises:
        AdapterError: It cannot be read, or is too large to be an image for a model.
    """
    try:
        return read_bytes(path, _MAX_FILE_BYTES)
    except OSError as err:
        raise AdapterError(f"image {path}: cannot be read ({err.strerror or err})") from err


def upright_size(content: bytes) -> tuple[int, int]:
    """(height, width) of an image file once it is upright; decodes its header alone."""
    image = _opened(content)
    width, height = image.size
    return (width, height) if image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE else (height, width)


def _opened(content: bytes) -> Image:
    """An image whose header alone has been read, of a size worth decoding."""
    image: Image = pillow().open(io.BytesIO(content), formats=_DECODERS)
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {_MAX_PIXELS / 1e6:.0f} million")
    return image


def _decoded(image: Image, mode: str) -> Image:
    """The first frame, upright, as `L`, `RGB` or `RGBA`."""
    from PIL import ImageOps

    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image.load()
    image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        wide = np.asarray(image).astype(np.uint32)
        wide *= 255
        wide += 32767
        wide //= 65535
        image = pillow().fromarray(wide.astype(np.uint8))
    elif image.mode in ("I", "F"):
        # 32-bit pixels have no agreed range.
        raise ValueError("32-bit pixels; convert it to 8 or 16 bits")
    elif "transparency" in image.info and image.mode != "RGBA":
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pixels with another number of channels, converted as Pillow does: alpha dropped or opaque, 601 luma."""
    have = pixels.shape[2]
    if have == channels:
        return pixels
    if have == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if channels == 1:
        weights = np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((pixels[:, :, :3] @ weights + 0x8000) >> 16).astype(np.uint8)[:, :, None]
    if channels == 4:
        return np.concatenate([pixels[:, :, :3], np.full_like(pixels[:, :, :1], 255)], axis=2)
    return pixels[:, :, :3]
