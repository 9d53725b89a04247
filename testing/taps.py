"""Laws of taps: the inputs of layers, as the samples have them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch
from lampq.testing.case import Case, require

# Sums in another order, and kernels of another batch size.
_TOLERANCE = 1e-3


def taps_fit_their_layers(case: Case) -> None:
    """They are of layers, float and finite, as wide as a matrix has columns; positions are whole numbers from 1."""
    model = case.read()
    layers = {layer.name: layer for layer in model.layers()}
    for name, values, positions in model.taps(case.batch):
        require(name in layers, f"taps name {name}, which is no layer")
        require(values.dtype.kind == "f", f"the input of {name} is {values.dtype}, not float")
        require(bool(np.isfinite(values).all()), f"the input of {name} is not finite")
        integral = isinstance(positions, int | np.integer) and positions >= 1
        require(integral, f"layer {name} is used in {positions!r} positions, not a whole number from 1")
        layer = layers[name]
        columns = layer.size // layer.channels
        if len(layer.shape) == 2:
            require(
                values.shape[-1] == columns, f"the input of {name} is {values.shape[-1]} wide, not {columns}"
            )


def taps_count_every_sample_once(case: Case) -> None:
    """Those of a batch are those of its samples: none that fills up a batch of fixed size, and none twice."""
    model = case.read()
    inputs = case.inputs(model)
    together = _sums(model, inputs)
    alone = [_sums(model, inputs.take([number])) for number in range(inputs.samples)]
    for name, sums in together.items():
        parts = [part.get(name, np.zeros(3)) for part in alone]
        require(
            sums[0] == sum(part[0] for part in parts),
            f"the input of {name} holds {sums[0]:.0f} numbers, that of the samples one by one "
            f"{sum(part[0] for part in parts):.0f}",
        )
        scale = sums[2] + 1e-12
        error = abs(sums[2] - sum(part[2] for part in parts)) / scale
        require(error <= _TOLERANCE, f"the input of {name} is another one among other samples")


def positions_are_those_of_a_sample(case: Case) -> None:
    """How often a sample uses a weight does not depend on how many there are."""
    model = case.read()
    inputs = case.inputs(model)
    together = _positions(model, inputs)
    alone: dict[str, set[int]] = {}
    for number in range(inputs.samples):
        for name, positions in _positions(model, inputs.take([number])).items():
            alone.setdefault(name, set()).update(positions)
    require(together == alone, f"positions of a batch are {together}, of its samples one by one {alone}")


def taps_see_new_weights(case: Case) -> None:
    """The input of a layer behind a replaced weight is what the variant computes; that in front stays."""
    model = case.read()
    inputs = case.inputs(model)
    before = _sums(model, inputs)
    behind = set()
    for layer in model.layers():
        variant = model.with_weights({layer.name: np.float32(0.5) * model.weight(layer.name)})
        after = _sums(variant, inputs)
        require(set(after) == set(before), f"with a new weight {layer.name} other layers have inputs")
        changed = {name for name in before if abs(after[name][2] - before[name][2]) > 1e-6 * before[name][2]}
        own = layer.name in changed and not layer.shares
        require(not own, f"the input of {layer.name} changes with its own weight")
        behind |= changed
    require(bool(behind), "no layer's input changes with a weight in front of it")


def _sums(model: Model, batch: Batch) -> Mapping[str, np.ndarray]:
    """Numbers, their sum and the sum of their squares of every layer's input."""
    sums: dict[str, np.ndarray] = {}
    for name, values, _ in model.taps(batch):
        wide = values.astype(np.float64)
        own = np.array([wide.size, wide.sum(), np.square(wide).sum()])
        sums[name] = sums.get(name, np.zeros(3)) + own
    return sums


def _positions(model: Model, batch: Batch) -> Mapping[str, set[int]]:
    positions: dict[str, set[int]] = {}
    for name, _, count in model.taps(batch):
        positions.setdefault(name, set()).add(int(count))
    return positions
