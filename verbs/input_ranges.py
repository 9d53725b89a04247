"""How the inputs of layers are rounded at every width: calibrated once, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters import format_named
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.reference import Reference
from lampq.core.measuring.setting import rounded_weight
from lampq.core.readouts.draws import Draws
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.fisher_kinds import EMPIRICAL
from lampq.core.values.layer import Layer
from lampq.core.values.measurement import Measurement
from lampq.core.values.messages import reason
from lampq.core.values.option import Option
from lampq.core.values.progress import Progress
from lampq.core.values.range_kinds import PER_TOKEN
from lampq.verbs.site_rules import SiteRules

UNMEASURED = (8, 16)
"""Widths that lose too little to be measured before a file is written."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputRanges:
    """Grids of layers' inputs. L layers, J options.

    Attributes:
        grids: By layer (index) and width; layers without an input to round have none.
        table: Ends of the grid at each option, float64, shape (L, J, 2), or None where tokens have their own.
        method: How they were chosen.
    """

    grids: dict[tuple[int, int], ActivationGrid]
    table: np.ndarray | None
    method: str

    @property
    def per_token(self) -> bool:
        """Whether each token has its own grid."""
        return self.method == PER_TOKEN

    def rule(self, layer: int, bits: int) -> ActivationRule | None:
        """How the input of a layer (by index) is rounded at a width; None where it has none."""
        return TokenGrid(bits=bits) if self.per_token else self.grids.get((layer, bits))


def input_ranges(
    model: Model,
    layers: Sequence[Layer],
    options: Sequence[Option],
    batch: Batch,
    method: str | None = None,
) -> InputRanges | None:
    """Choose the grid of every layer's input at every width.

    Args:
        model: The float model.
        layers: Its L records.
        options: J options.
        batch: Calibration inputs, samples first.
        method: `minmax`, `percentile` or `mse` (`core.quantizing.activation_range`), or `token`; None takes `mse`.

    Returns:
        The grids, or None where inputs stay float until the model is written: no option rounds them, or the
        model cannot.

    Raises:
        AdapterError: The format has no such widths or ranges.
    """
    widths = sorted({option.activation_bits for option in options if option.activation_bits})
    if not widths:
        return None
    if not rounds_activations(model):
        _check_runtime(model, widths, method)
        return None
    method = method or "mse"
    if method == PER_TOKEN:
        return InputRanges(grids={}, table=None, method=method)
    seen = model.calibrate(batch)
    grids = {
        (index, bits): seen[layer.name].grid(bits, method)
        for index, layer in enumerate(layers)
        if layer.name in seen
        for bits in widths
    }
    table = np.zeros((len(layers), len(options), 2))
    for index in range(len(layers)):
        for column, option in enumerate(options):
            grid = grids.get((index, option.activation_bits or 0))
            if grid is not None:
                table[index, column] = grid.low, grid.high
    return InputRanges(grids=grids, table=table, method=method)


def _check_runtime(model: Model, widths: Sequence[int], method: str | None) -> None:
    """Refuse what a format's runtime cannot do."""
    able = [bits for bits in UNMEASURED if bits in format_named(model.format).input_bits]
    if len(widths) != 1 or widths[0] not in able:
        raise AdapterError(
            f"{model.path.name}: inputs of {', '.join(map(str, widths))} bits; the runtimes of {model.format} models "
            f"have inputs of {' or '.join(map(str, able))} bits alone, other widths can be tried with the PyTorch model"
        )
    if method not in (None, "minmax"):
        raise AdapterError(
            f"{model.path.name}: activation range {method!r}; {model.format} models take minmax alone"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointFisher:
    """Second-order damage of rounding weights and input of a layer together.

    Attributes:
        table: Of every layer and option, nats, shape (L, J), or None: it was not measured.
        note: Why gradients could not be taken, where they were asked for, or empty.
    """

    table: np.ndarray | None = None
    note: str = ""


def measure_joint(
    model: Model,
    layers: Sequence[Layer],
    reference: Reference,
    measurement: Measurement,
    ranges: InputRanges | SiteRules,
    *,
    samples: np.ndarray | None,
    progress: Progress,
) -> JointFisher:
    """Joint Fisher score of every layer and option.

    Args:
        model: The float model.
        layers: Its L records.
        reference: What the float model makes of the calibration inputs.
        measurement: J options, all weight widths with all input widths; draws, and labels where they are empirical.
        ranges: How inputs are rounded.
        samples: Number of each sample in the whole data set, or None.
        progress: Told how far it is.

    Raises:
        AdapterError: Empirical scores are wanted, and the outputs are no lone classes.
    """
    if not rounds_activations(model):
        return JointFisher()
    if measurement.fisher == EMPIRICAL:
        reference.readout.check_labels(reference.outputs)
    options = measurement.options
    widths = sorted({option.weight_bits for option in options})
    inputs = sorted({option.activation_bits for option in options if option.activation_bits})
    candidates = {
        layer.name: (
            [rounded_weight(model, layer, bits) for bits in widths],
            [ranges.rule(index, bits) for bits in inputs],
        )
        for index, layer in enumerate(layers)
    }
    draws = Draws(
        count=measurement.fisher_draws,
        seed=measurement.seed,
        samples=samples,
        truth=measurement.labels if measurement.fisher == EMPIRICAL else None,
    )
    try:
        scores = model.joint_fisher(
            reference.inputs,
            candidates,
            reference.readout,
            draws,
            progress=progress,
        )
    except AdapterError as err:
        # A layout of weights without gradients of single samples: the other scores remain.
        return JointFisher(note=reason(err))
    places = [
        (widths.index(option.weight_bits), inputs.index(option.activation_bits))
        for option in options
        if option.activation_bits
    ]
    return JointFisher(table=np.array([[scores[layer.name][place] for place in places] for layer in layers]))
