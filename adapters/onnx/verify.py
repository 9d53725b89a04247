"""Run a written model and compare it with what it should compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.agreement import difference
from lampq.adapters.onnx import batches, inputs
from lampq.adapters.onnx.decisions import Decisions
from lampq.adapters.onnx.flow import is_float
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.reference import ROUNDING_OPSET, reference
from lampq.adapters.onnx.trials import Arrays, run_file, run_graph
from lampq.adapters.onnx.variant import Variant
from lampq.core.quantizing.quantizer import Codes
from lampq.core.values.batch import BatchLike
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.errors import AdapterError

# Weights alone differ by the order of sums. Rounded inputs may tip to the next code and drag others along.
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
# What a nudge of the input by the precision of float32 is, and what no nudge excuses.
_NUDGE, _GARBAGE = 1e-6, 0.5

# The most samples of a batch: one run must not take the memory of a whole data set.
_MOST_SAMPLES = 32


def check(
    variant: Variant,
    written: Path,
    decisions: Decisions,
    weights: Mapping[str, Codes],
    batch: BatchLike | None,
) -> float:
    """Compare a written model with the float one, weights and inputs rounded in float arithmetic.

    All float outputs are compared, judged or not, but those behind discontinuous operators; where there is no other,
    the inner tensors that are judged in their place.

    Args:
        variant: The float model.
        written: The file.
        decisions: What was done to it.
        weights: The quantized weights by layer name.
        batch: Inputs, samples first; None makes some of noise.

    Returns:
        The largest difference of any output, relative to the largest magnitude of that output.

    Raises:
        AdapterError: It exceeds the tolerance, an output is not finite, or the file does not run.
    """
    folder, names = written.parent, compared(variant)
    graph = reference(variant, decisions, weights)
    feed, expected = first_run(variant, graph, names, batch, folder)
    if decisions.grids:
        _check_conversion(variant, names, feed, folder)
    error = _furthest(run_file(variant, written, names, feed), expected)
    tolerance = INTEGER_TOLERANCE if decisions.grids else FLOAT_TOLERANCE
    if tolerance < error < _GARBAGE and decisions.grids:
        # A deep model of few bits may amplify the last bit of a float as much: ask the reference itself.
        nudged = run_graph(variant, graph, names, _nudged(feed), folder)
        tolerance = max(tolerance, 2 * _furthest(nudged, expected))
    if not error <= min(tolerance, _GARBAGE):
        raise AdapterError(
            f"the quantized {variant.path.name} does not compute what it should: an output is off by "
            f"{error:.2g} of its range, and at most {tolerance:.2g} would be right; nothing was written"
        )
    return error


def compared(variant: Variant) -> tuple[str, ...]:
    """Names of the values that a written model is compared by."""
    opened = variant.opened
    outputs = [value for value in opened.flow.model.graph.outputs if is_float(value)]
    steady = tuple(value.name or "" for value in outputs if value.name not in opened.jumping)
    return tuple(dict.fromkeys(steady)) or tuple(head.name for head in opened.judged)


def _furthest(actual: Arrays, expected: Arrays) -> float:
    """Largest difference of any output of numbers, relative to its largest expected magnitude."""
    return max(
        (
            difference(actual[name], right)
            for name, right in expected.items()
            if right.dtype.kind == "f" or actual[name].shape != right.shape
        ),
        default=0.0,
    )


def _nudged(feed: Arrays) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: (array * (1 + _NUDGE * generator.standard_normal(array.shape))).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in feed.items()
    }


def first_run(
    variant: Variant, graph: ir.Model, names: Sequence[str], batch: BatchLike | None, folder: Path
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """A feed that a graph can be run with, and its outputs.

    Raises:
        AdapterError: It runs with none.
    """
    failure: AdapterError | None = None
    blind: tuple[Arrays, dict[str, np.ndarray]] | None = None
    for feed in _feeds(variant, batch):
        try:
            outputs = run_graph(variant, graph, names, feed, folder)
        except AdapterError as err:
            failure = failure or err
            continue
        if all(array.dtype.kind != "f" or np.isfinite(array).any() for array in outputs.values()):
            return feed, outputs
        blind = blind or (feed, outputs)
    if blind is not None:
        return blind
    raise AdapterError(
        f"{failure}; it was to be checked with made-up inputs: give data, or fix inputs with --input NAME=VALUE"
    ) from failure


def _feeds(variant: Variant, batch: BatchLike | None) -> Iterator[Arrays]:
    """The first samples of a batch, as many as the model takes at once, or noise of several shapes."""
    opened = variant.opened
    if batch is None:
        axes = inputs.sample_axes(opened.flow)
        for noise in inputs.noise(opened.flow, opened.all_specs, opened.constants):
            yield inputs.laid_out(noise, axes)
        return
    group = checked_inputs(batch, opened.specs, str(variant.path)).groups[0]
    samples = len(next(iter(group.values())))
    first = batches.split(group, opened.batch or min(samples, _MOST_SAMPLES), fixed=True)[0]
    yield opened.feeds(first.arrays, first.size)


def _check_conversion(variant: Variant, names: Sequence[str], feed: Arrays, folder: Path) -> None:
    """Where the reference needed another operator set: the conversion alone must change nothing.

    Raises:
        AdapterError: It does.
    """
    original, _ = fresh_graph(variant, 1)
    if original.opset_imports[""] >= ROUNDING_OPSET:
        return
    converted, _ = fresh_graph(variant, ROUNDING_OPSET)
    outputs = [run_graph(variant, graph, names, feed, folder) for graph in (converted, original)]
    error = _furthest(*outputs)
    if not error <= FLOAT_TOLERANCE:
        raise AdapterError(
            f"converting {variant.path.name} to operator set {ROUNDING_OPSET} changes what it computes by "
            f"{error:.2g} of its range; export it again with a later one"
        )
