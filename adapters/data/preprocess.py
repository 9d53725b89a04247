"""How pixels become a model's input: size, crop, scale, mean and deviation, order of channels and axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import CHANNELS, FLOATING, LAYOUTS, InputSpec

RESIZES = ("shortest", "plain")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """A model's input as a function of an image's pixels: (pixel * scale - mean) / std after resizing.

    An image that already has the target size is neither resampled nor cropped, whatever `crop_pct` says.

    Attributes:
        mean: Subtracted per channel, in the order the model sees; one value serves all channels.
        std: Divided by, likewise; > 0.
        scale: Factor of the pixel values 0..255.
        size: Target (height, width), or None: the model's own.
        resize: `shortest` keeps the aspect ratio and crops the centre, `plain` does not keep it.
        crop_pct: Part of each side of the resized image that the centre crop keeps, in (0, 1].
        interpolation: One of `INTERPOLATIONS`, all of them antialiased except `nearest`.
        channel_order: `RGB` or `BGR`.
        channels: 1 (grey), 3 or 4 (with alpha), or None: the model's own.
        layout: One of `NCHW`, `NHWC`, `NHW`, or None: the model's own.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    size: tuple[int, int] | None = None
    resize: str = "shortest"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    channel_order: str = "RGB"
    channels: int | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        _one_of("resize", self.resize, RESIZES)
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("channel_order", self.channel_order, CHANNEL_ORDERS)
        if self.layout is not None:
            _one_of("layout", self.layout, LAYOUTS)
        if self.channels is not None and self.channels not in CHANNELS:
            raise AdapterError(f"preprocessing: {self.channels} channels; images have 1, 3 or 4")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise AdapterError(f"preprocessing: size {self.size} is no (height, width) in pixels")
        if not 0 < self.crop_pct <= 1:
            raise AdapterError(f"preprocessing: crop_pct {self.crop_pct} is not in (0, 1]; 0.875 is usual")
        for name, values in (("mean", self.mean), ("std", self.std), ("scale", (self.scale,))):
            if not values or not all(math.isfinite(value) for value in values):
                raise AdapterError(f"preprocessing: {name} {values} is not finite")
        if min(self.std) <= 0 or self.scale == 0:
            raise AdapterError(f"preprocessing: std {self.std} and scale {self.scale} cannot be 0 or less")
        if 1 not in (len(self.mean), len(self.std)) and len(self.mean) != len(self.std):
            raise AdapterError(f"preprocessing: {len(self.mean)} means but {len(self.std)} deviations")

    @classmethod
    def preset(cls, name: str) -> Preprocess:
        """A usual preprocessing by name.

        Raises:
            AdapterError: No preset has this name; lists those there are.
        """
        if name not in PRESETS:
            raise AdapterError(f"no preprocessing preset {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_json`.

        Raises:
            AdapterError: A field is unknown or impossible.
        """
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        try:
            return cls(**values)
        except TypeError as err:
            raise AdapterError(f"malformed preprocessing record: {err}") from err

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        pairs = dataclasses.asdict(self).items()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs}

    def for_input(self, spec: InputSpec, *, image_size: tuple[int, int] | None = None) -> Preprocess:
        """The same with size, channels and layout filled in from the model's input.

        Args:
            spec: The model's input.
            image_size: (height, width) to take where neither the record nor the model fixes one.

        Raises:
            AdapterError: The input takes no images, the record contradicts it, or a side stays unknown.
        """
        layout = self.layout or spec.layout or ("NCHW" if len(spec.shape) == 4 else None)
        if layout is None or len(layout) != len(spec.shape):
            raise AdapterError(f"model input {spec} takes no images; give a function or an .npz of arrays")
        axes = dict(zip(layout, spec.shape, strict=True))
        return dataclasses.replace(
            self,
            size=self._size_for(spec, (axes["H"], axes["W"]), image_size),
            channels=self._channels_for(spec, axes.get("C", 1)),
            layout=layout,
            scale=self._scale_for(spec),
        )

    def _size_for(
        self, spec: InputSpec, own: tuple[int | None, int | None], image_size: tuple[int, int] | None
    ) -> tuple[int, int]:
        """The model's size, else the record's, else the image's."""
        height, width = self.size or image_size or (None, None)
        clash = self.size is not None and (own[0] not in (None, height) or own[1] not in (None, width))
        if clash:
            raise AdapterError(
                f"preprocessing makes images of {height}x{width}, but the model's input is {spec}"
            )
        height, width = own[0] or height, own[1] or width
        if height is None or width is None:
            raise AdapterError(
                f"model input {spec} takes images of any size; give the size to use (--image-size)"
            )
        return height, width

    def _channels_for(self, spec: InputSpec, own: int | None) -> int:
        """The model's channels, else the record's, else as many as there are means, else 3."""
        values = max(len(self.mean), len(self.std))
        channels = own or self.channels or (values if values > 1 else 3)
        if channels not in CHANNELS:
            raise AdapterError(
                f"model input {spec} would take images of {channels} channels; they have 1, 3 or 4"
            )
        if self.channels not in (None, channels):
            raise AdapterError(
                f"preprocessing gives {self.channels} channels, but the model's input is {spec}"
            )
        if values not in (1, channels):
            raise AdapterError(
                f"preprocessing has means of {values} channels, but the model's input is {spec}"
            )
        return channels

    def _scale_for(self, spec: InputSpec) -> float:
        """The factor for a floating input; 1 for an input that takes the bytes themselves."""
        if spec.dtype in FLOATING:
            return self.scale
        if spec.dtype != "uint8":
            raise AdapterError(f"model input {spec} takes no images; give a function or an .npz of arrays")
        if set(self.mean) != {0.0} or set(self.std) != {1.0}:
            raise AdapterError(f"model input {spec} takes raw bytes; leave mean and std out")
        return 1.0


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise AdapterError(f"preprocessing: {name} {value!r} is none of {', '.join(allowed)}")


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875),
    "inception": Preprocess(mean=(0.5,), std=(0.5,), crop_pct=0.9),
    # Not the data's own deviations (0.247, 0.2435, 0.2616): most public checkpoints were trained with these.
    "cifar10": Preprocess(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    "clip": Preprocess(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "none": Preprocess(),
}
"""Usual preprocessings by name; `none` only scales to [0, 1]."""
