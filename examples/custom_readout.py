"""A reading of outputs of one's own in one file: numbers whose error counts relative to their size, as of depths.

Damage is half the mean of ((z - z_float) / (|z_float| + floor))^2. Needs lampq[onnx]: python examples/custom_readout.py

`ROLE_KINDS.add` makes it known in the running program, where `NAME=relative` is then a role like any other. To use it
on the command line, announce it in the pyproject.toml of the package it is in:

    [project.entry-points."lampq.roles"]
    relative = "your_package.custom_readout:RELATIVE"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import lampq
from lampq.core.readouts.role import Embedding
from lampq.core.values.head import ROLE_KINDS
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH


@dataclass(frozen=True, kw_only=True, eq=False)
class Relative:
    """A `lampq.core.readouts.role.Role`: nats are half squares of errors in units of `unit`."""

    floor: float

    def damage(self, reference, output, mask):
        """Nats per sample."""
        error = (output.astype(np.float64) - reference) * self._inverse(reference)
        return 0.5 * np.square(error).reshape(len(error), -1).mean(axis=1)

    def embedding(self, centre, mask, scale=1.0):
        """Rows whose squares are the damage: it is of second order throughout."""
        entries = centre[0].size
        factor = (self._inverse(centre) * np.sqrt(scale / (2 * entries))).astype(np.float32)
        importance = np.full(centre.shape, 1 / entries)
        return Embedding(apply=lambda difference: difference * factor, importance=importance)

    def slope(self, reference, centre, mask):
        """Gradient of the damage at `centre`."""
        return (centre.astype(np.float64) - reference) * self._inverse(reference) ** 2 / reference[0].size

    def signs_shape(self, shape):
        """A sign for every entry."""
        return shape

    def probe(self, output, mask, signs):
        """A direction v with E[v v^T] the metric."""
        return signs * self._inverse(output) / np.sqrt(output[0].size)

    def decisions(self, output):
        """Numbers decide nothing."""

    def _inverse(self, values):
        return 1 / (np.abs(values.astype(np.float64)) + self.floor)


def fit(head: lampq.Head, parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> Relative | str:
    """The floor is a tenth of the usual size, so that numbers near zero do not count without end."""
    if head.mask is not None:
        return "masked, which relative errors do not know"
    size = float(np.mean([np.abs(array).mean() for array, _ in parts]))
    return Relative(floor=0.1 * size) if size > 0 else "zero for all samples"


RELATIVE = lampq.RoleKind(name="relative", fit=fit)


def main() -> None:
    ROLE_KINDS.add(RELATIVE)
    model = lampq.read(MODEL_PATH)
    own = model.with_heads([lampq.HeadChoice(name=model.heads[0].name, role="relative")])
    images = lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, samples=64).inputs()
    for name, judged in {"as classes": model, "by relative error": own}.items():
        profile = lampq.profile(judged, images, bits=(2, 3, 4, 8))
        plan = lampq.plan(profile, average_bits=3)
        measured = lampq.evaluate(lampq.fake_quantize(own, plan), images, reference=own)
        print(f"judged {name}: {plan.predicted_kl:.4f} nats predicted, {measured.kl:.4f} of relative errors")


if __name__ == "__main__":
    main()
