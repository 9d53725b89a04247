"""What calibration has seen at a site, and what rounding it would do to the outputs.

A plain squared error of the site picks badly: it does not see that errors of all tokens of an image point the same way
and add up. With gradients the sum over all values comes before the square, so it does see that: to first order rounding
moves v^T z by <g_v, x_hat - x>, and the mean of its square over directions v is twice the damage. Without gradients the
error of each sample's average token stands for what adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.activation_rule import LAST, ActivationRule, SiteAxes
from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Values of a site in S samples.

    Attributes:
        name: The site.
        role: What it is in the model (`core.treatments.roles`).
        values: Float32, samples first (samples x heads where there are heads).
        samples: S.
        gradients: Of v^T z for D directions v, shape (D, *values.shape), or None.
        axes: Where the parts of the values lie.
    """

    name: str
    role: str
    values: np.ndarray
    samples: int
    gradients: np.ndarray | None = None
    axes: SiteAxes = LAST

    def __post_init__(self) -> None:
        if not self.values.size:
            raise RecordError(f"site {self.name}: no values were seen; calibrate with data that reaches it")
        if not np.isfinite(self.values).all():
            raise RecordError(
                f"activations at {self.name} are not finite; check the preprocessing of the data"
            )

    @property
    def low(self) -> float:
        """Smallest value."""
        return float(self.values.min())

    @property
    def high(self) -> float:
        """Largest value."""
        return float(self.values.max())

    def loss(self, rule: ActivationRule) -> float:
        """Damage of rounding to second order, nats; without gradients a figure to compare rules by."""
        error = rule.apply(self.values, self.axes) - self.values
        if self.gradients is None:
            return self._coherent(error)
        rows = np.einsum("dsn,sn->ds", self._flat(self.gradients), error.reshape(self.samples, -1))
        return float(np.square(rows, dtype=np.float64).sum() / (2 * self.samples))

    def _flat(self, gradients: np.ndarray) -> np.ndarray:
        return gradients.reshape(len(gradients), self.samples, -1)

    def _coherent(self, error: np.ndarray) -> float:
        """Squared error of each sample's average token, and of tokens by themselves as far as they average out."""
        single = float(np.square(error, dtype=np.float64).mean())
        if error.ndim < 3:
            return single
        axis = -1 if self.axes.sums == -2 else -2
        mean = error.mean(axis=axis)
        return float(np.square(mean, dtype=np.float64).mean()) + single / error.shape[axis]
