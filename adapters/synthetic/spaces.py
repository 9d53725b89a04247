"""What samples are made of before a model takes them: pictures, or plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lampq.adapters.data.preprocess import Preprocess
from lampq.adapters.synthetic.scenes import scenes

if TYPE_CHECKING:
    import torch

# Brightness of RGB (ITU-R BT.601), for models of grey pictures.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Pictures are kept this far from black and white while they change, where a sigmoid still has a slope.
_MARGIN = 0.02


class Space(Protocol):
    """Samples of one input as they are made and kept."""

    def draw(self, count: int, *, seed: int, first: int = 0) -> np.ndarray:
        """Samples number `first` and following, float32, as drawn from no model."""

    def moved(self, start: torch.Tensor, offset: torch.Tensor, smoothness: float) -> torch.Tensor:
        """Samples that an offset of their own shape leads to from `start`; zeros lead nowhere."""

    def fed(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples as the model takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures of shape (channels, height, width) in [0, 1], RGB.

    Attributes:
        preprocess: From them to the model's input, complete.
    """

    preprocess: Preprocess

    def draw(self, count: int, *, seed: int, first: int = 0) -> np.ndarray:
        """Scenes; see `lampq.adapters.synthetic.scenes`."""
        assert self.preprocess.size is not None  # The record is complete.
        drawn = scenes(count, *self.preprocess.size, seed=seed, first=first)
        if self.preprocess.channels == 1:
            grey: np.ndarray = np.einsum("c,nchw->nhw", _LUMA, drawn)
            return grey[:, None]
        if self.preprocess.channels == 4:
            return np.concatenate([drawn, np.ones_like(drawn[:, :1])], axis=1)
        return drawn

    def moved(self, start: torch.Tensor, offset: torch.Tensor, smoothness: float) -> torch.Tensor:
        """Offsets count as waves, of which fine ones move less, and bend before black and white."""
        import torch

        spectrum = torch.fft.rfft2(offset, norm="ortho") * _gains(offset.shape[-2:], smoothness).to(
            offset.device
        )
        waves = torch.fft.irfft2(spectrum, s=offset.shape[-2:], norm="ortho")
        return torch.sigmoid(torch.logit(start.clamp(_MARGIN, 1 - _MARGIN)) + waves)

    def fed(self, samples: torch.Tensor) -> torch.Tensor:
        """Normalized, in the model's order of channels and axes."""
        import torch

        record = self.preprocess
        mean, deviation = (samples.new_tensor(v).reshape(-1, 1, 1) for v in (record.mean, record.std))
        if record.channel_order == "BGR" and samples.shape[1] >= len(_LUMA):
            samples = torch.cat([samples[:, :3].flip(1), samples[:, 3:]], dim=1)
        values = (samples * (255 * record.scale) - mean) / deviation
        return {"NCHW": values, "NHWC": values.movedim(1, -1), "NHW": values[:, 0]}[record.layout or "NCHW"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Plain numbers, Gaussian where nothing is known of them.

    Attributes:
        shape: Of one sample.
    """

    shape: Sequence[int]

    def draw(self, count: int, *, seed: int, first: int = 0) -> np.ndarray:
        """Noise of mean 0 and deviation 1."""
        numbers = range(first, first + count)
        return np.stack(
            [np.random.default_rng([seed, n]).standard_normal(self.shape, np.float32) for n in numbers]
        )

    def moved(self, start: torch.Tensor, offset: torch.Tensor, smoothness: float) -> torch.Tensor:
        """Offsets are added."""
        return start + offset

    def fed(self, samples: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return samples


def _gains(size: Sequence[int], smoothness: float) -> torch.Tensor:
    """Factor of every wave of a picture, root mean square 1."""
    import torch

    height, width = size
    frequency = torch.sqrt(torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2)
    gains = frequency.clamp_min(1 / max(height, width)) ** -smoothness
    return gains / gains.square().mean().sqrt()
