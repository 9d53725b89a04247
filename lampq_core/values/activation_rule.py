"""How an activation is rounded, seen from those who have it rounded: one body for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.option import ACTIVATION_WIDTHS


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAxes:
    """Where the parts of a site's values lie.

    Attributes:
        sums: The axis that the product sums over, counted from the end; 0 for a convolution, whose tokens are images.
        rows: Heads of a factor, or tokens of a layer's input, that the leading axes run over within each sample; 1
            where the first is that of samples.
        inner: Neighbouring rows of one sample; None where all of them lie together.
        leading: Axes that samples and rows lie along together, 1 or 2.
    """

    sums: int = -1
    rows: int = 1
    inner: int | None = None
    leading: int = 1

    def of(self, shape: tuple[int, ...], samples: int) -> SiteAxes:
        """The same for values of a shape, of so many samples; one row where they do not divide."""
        count = math.prod(shape[: self.leading])
        fits = len(shape) > self.leading and count % samples == 0
        return replace(self, rows=count // samples) if fits else replace(self, rows=1, inner=None, leading=1)

    def lines(self, ndim: int) -> tuple[int, ...]:
        """Axes of one token."""
        return tuple(range(1, ndim)) if self.sums == 0 else (self.sums,)

    def split(self, values: Any, xp: Any) -> Any:
        """Values as (samples, rows, ...)."""
        inner, rest = self.inner or self.rows, tuple(values.shape[self.leading :])
        outer = self.rows // inner
        samples = math.prod(values.shape[: self.leading]) // self.rows
        return xp.moveaxis(values.reshape((outer, samples, inner, *rest)), 1, 0).reshape(
            (samples, self.rows, *rest)
        )

    def join(self, split: Any, shape: tuple[int, ...], xp: Any) -> Any:
        """The inverse of `split`, in the shape of the values."""
        inner, rest = self.inner or self.rows, tuple(split.shape[2:])
        parts = split.reshape((split.shape[0], self.rows // inner, inner, *rest))
        return xp.moveaxis(parts, 1, 0).reshape(shape)


LAST = SiteAxes()
"""Samples first, tokens along the last axis."""


class ActivationRule(Protocol):
    """How a tensor is rounded; a new kind is a file in `core.treatments` and a line in its table."""

    @property
    def bits(self) -> int:
        """Width, one of `ACTIVATION_WIDTHS`."""

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Rounded values of the same shape.

        Args:
            values: An array of NumPy, or a tensor of PyTorch.
            axes: Where its parts lie.
            xp: `numpy` or `torch`.
        """

    def fitted(self) -> Fitted:
        """As files hold it."""


def check_bits(bits: int) -> None:
    """Refuse a width that activations do not have.

    Raises:
        RecordError: It is none of `ACTIVATION_WIDTHS`.
    """
    if bits not in ACTIVATION_WIDTHS:
        raise RecordError(f"{bits} activation bits: choose 2 to 8, or 16")


def constant(numbers: np.ndarray | list[float] | tuple[float, ...], values: Any, xp: Any) -> Any:
    """Numbers as an array of the kind, type and place of `values`."""
    if xp is np:
        return np.asarray(numbers, dtype=np.float32)
    return xp.as_tensor(np.asarray(numbers, dtype=np.float32)).to(device=values.device, dtype=values.dtype)
