"""Codes and scales that gradients can move: real numbers that are rounded on the way, straight through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lampq.core.quantizing.quantizer import Quantized, as_rows
from lampq.core.values.activation_rule import LAST, ActivationRule, SiteAxes

# How far from its code a real-valued code may start: a step further it would be another's.
_REACH = 0.45


class Straight:
    """A rule whose gradient is that of leaving the values as they are.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: ActivationRule) -> None:
        self._rule = rule

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = torch) -> Any:
        """Rounded values."""
        exact = values.detach()
        return values + (self._rule.apply(exact, axes, xp) - exact)


class SoftCodes:
    """Codes and scales of a layer, to be trained.

    Args:
        quantized: Where they start.
        weight: What is rounded, in the shape of its record.
        channel_axis: Its axis of output channels.
        like: The tensor of the layer: shape, type and place.

    Attributes:
        latent: Real-valued codes, shape (C, N).
        log_scale: Logarithms of the scales, relative to those at the start, shape (C, 1).
    """

    def __init__(
        self, quantized: Quantized, weight: np.ndarray, channel_axis: int, *, like: torch.Tensor
    ) -> None:
        self._start, self._axis, self._like = quantized, channel_axis, like
        rows = as_rows(weight, channel_axis).reshape(quantized.codes.shape)
        exact = (rows / quantized.scale[:, None] + quantized.offset) / quantized.step
        codes = quantized.codes.astype(np.float32)
        self._rows = rows
        latent = torch.from_numpy(np.clip(exact, codes - _REACH, codes + _REACH)).to(like.device)
        self._scale = torch.from_numpy(quantized.scale[:, None].copy()).to(like.device)
        self.latent = torch.nn.Parameter(latent)
        self.log_scale = torch.nn.Parameter(torch.zeros_like(self._scale))

    def state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of what is trained."""
        return self.latent.detach().clone(), self.log_scale.detach().clone()

    @torch.no_grad()
    def restore(self, state: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Back to an earlier state."""
        self.latent.copy_(state[0])
        self.log_scale.copy_(state[1])

    def weight(self) -> torch.Tensor:
        """What the codes stand for, in shape and type of the layer's tensor."""
        codes = self.latent + (self._codes() - self.latent).detach()
        rows = (self._start.step * codes - self._start.offset) * self._scales()
        shape = self._like.shape
        moved = (shape[self._axis], *shape[: self._axis], *shape[self._axis + 1 :])
        return rows.reshape(moved).movedim(0, self._axis).contiguous().to(self._like.dtype)

    def quantized(self) -> Quantized:
        """The codes and scales that were learned."""
        codes = self._codes().to(torch.uint8).cpu().numpy()
        scale = self._scales().detach().reshape(-1).cpu().numpy()
        start = self._start
        values = (codes.astype(np.float32) * start.step - start.offset) * scale[:, None]
        error = np.square(values - self._rows, dtype=np.float64).sum(axis=1)
        return Quantized(
            codes=codes,
            scale=scale,
            step=start.step,
            offset=start.offset,
            bits=start.bits,
            squared_error=error,
        )

    def _codes(self) -> torch.Tensor:
        return self.latent.detach().round().clamp(0, (1 << self._start.bits) - 1)

    def _scales(self) -> torch.Tensor:
        return self._scale * self.log_scale.exp()
