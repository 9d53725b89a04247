"""Readouts worked out by hand, and outputs to try them on."""

import numpy as np
import pytest
from hypothesis import settings

from lampq.core.readouts.classes import Classes
from lampq.core.readouts.direction import Direction
from lampq.core.readouts.probabilities import Probabilities
from lampq.core.readouts.readout import Readout
from lampq.core.readouts.values import Values
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head

SPREAD = np.array([0.5, 1.0, 2.0])
ROLES = {
    "classes": Classes,
    "probabilities": Probabilities,
    "values": lambda axis: Values(axis=axis, spread=SPREAD),
    "direction": lambda axis: Direction(axis=axis, spread=SPREAD),
}
# Shapes of outputs with three entries along an axis, and that axis.
SHAPES = [((2, 3), 1), ((2, 3), -1), ((2, 4, 3), 2), ((2, 3, 4), 1), ((2, 3, 2, 2), 1), ((2, 2, 2, 3), -1)]
SETTINGS = settings(max_examples=10, deadline=None)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def bernoulli(p, q):
    return sum(a * np.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)))


def entry_damage(role, r, z):
    """Damage of one position, from the definition."""
    if role == "classes":
        p, q = softmax(r), softmax(z)
        return sum(p[c] * np.log(p[c] / q[c]) for c in range(3))
    if role == "probabilities":
        return sum(bernoulli(1 / (1 + np.exp(-r[c])), 1 / (1 + np.exp(-z[c]))) for c in range(3))
    if role == "direction":
        r, z = r / np.linalg.norm(r), z / np.linalg.norm(z)
    return sum(((z[c] - r[c]) / SPREAD[c]) ** 2 / 2 for c in range(3)) / 3


def position_damage(role, reference, output, axis, mask):
    """Damage of samples: positions one by one, averaged where the mask is set."""
    totals = []
    for sample in range(len(reference)):
        r = np.moveaxis(reference[sample], axis - 1 if axis > 0 else axis, -1).reshape(-1, 3)
        z = np.moveaxis(output[sample], axis - 1 if axis > 0 else axis, -1).reshape(-1, 3)
        chosen = [p for p in range(len(r)) if mask is None or mask[sample, p]]
        totals.append(sum(entry_damage(role, r[p], z[p]) for p in chosen) / max(len(chosen), 1))
    return np.array(totals)


def outputs(seed, shape, axis, masked):
    """Two outputs, a small difference and a mask, float64."""
    rng = np.random.default_rng(seed)
    reference, output, difference = rng.normal(size=(3, *shape)) * np.array([2, 2, 1]).reshape(
        3, *[1] * len(shape)
    )
    positions = reference[0].size // shape[axis]
    mask = rng.integers(0, 2, (shape[0], positions)) if masked else None
    return reference, output, difference, mask


every_role = pytest.mark.parametrize("role", ROLES)
every_shape = pytest.mark.parametrize(("shape", "axis"), SHAPES)


def joint(seed=0):
    """Heads of every role, float outputs in two groups of shapes, other outputs, and masks."""
    rng = np.random.default_rng(seed)

    def draw(samples, tokens):
        shapes = {"c": (4, tokens), "p": (1, tokens, 2), "v": (tokens, 3), "d": (5,), "o": ()}
        return {name: rng.normal(size=(samples, *shape)).astype(np.float32) for name, shape in shapes.items()}

    heads = (
        Head(name="c", role="classes", axis=1, weight=2.0),
        Head(name="p", role="probabilities", axis=1),
        Head(name="v", role="values", mask="mask", weight=0.5),
        Head(name="d", role="direction"),
        Head(name="o", role="probabilities"),
    )
    one, other = (Batch([draw(3, 4), draw(2, 6)]) for _ in range(2))
    masks = Batch([{"mask": rng.integers(0, 2, (3, 4))}, {"mask": rng.integers(0, 2, (2, 6))}])
    return heads, one, other, masks


def lone(samples=4, classes=5, seed=0):
    logits = np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32) * 3
    batch = Batch.of(logits, name="y")
    return Readout.fit((Head(name="y", role="classes"),), batch, None), batch
