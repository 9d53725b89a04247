"""Run a written model and compare it with what it should compute."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import batches, inputs, integer, save
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.flow import is_float
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.recipe import Recipe
from lampq.adapters.onnx.session import to_value
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Variant
from lampq.core.quantizing.quantizer import Quantized, from_rows
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError

Arrays = Mapping[str, np.ndarray]

# Weights alone differ by the order of sums. Rounded inputs may tip to the next code and drag others along.
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
# What a nudge of the input by the precision of float32 is, and what no nudge excuses.
_NUDGE, _GARBAGE = 1e-6, 0.5

# The first operator set with Round, and with Clip between values that are inputs.
_ROUNDING_OPSET = 11

# The most samples of a batch: one run must not take the memory of a whole data set.
_MOST_SAMPLES = 32

# References with more bytes of tensors are run from a data file.
_SINGLE_FILE_BYTES = 1 << 24


def check(
    variant: Variant,
    written: Path,
    recipe: Recipe,
    weights: Mapping[str, Quantized],
    batch: BatchLike | None,
) -> float:
    """Compare a written model with the float one, weights and inputs rounded in float arithmetic.

    All float outputs are compared, judged or not, but those behind discontinuous operators; where there is no other,
    the inner tensors that are judged in their place.

    Args:
        variant: The float model.
        written: The file.
        recipe: What was done to it.
        weights: The quantized weights by layer name.
        batch: Inputs, samples first; None makes some of noise.

    Returns:
        The largest difference of any output, relative to the largest magnitude of that output.

    Raises:
        AdapterError: It exceeds the tolerance, an output is not finite, or the file does not run.
    """
    folder, names = written.parent, compared(variant)
    graph = reference(variant, recipe, weights)
    feed, expected = _first_run(variant, graph, names, batch, folder)
    if recipe.activations:
        _check_conversion(variant, names, feed, folder)
    error = difference(run_file(variant, written, names, feed), expected)
    tolerance = INTEGER_TOLERANCE if recipe.activations else FLOAT_TOLERANCE
    if tolerance < error < _GARBAGE and recipe.activations:
        # A deep model of few bits may amplify the last bit of a float as much: ask the reference itself.
        nudged = run_graph(variant, graph, names, _nudged(feed), folder)
        tolerance = max(tolerance, 2 * difference(nudged, expected))
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


def reference(variant: Variant, recipe: Recipe, weights: Mapping[str, Quantized]) -> ir.Model:
    """The float model with rounded weights, and with inputs rounded by elementary arithmetic.

    Nothing in it is a quantization operator, so no runtime treats it as a quantized model.
    """
    graph, sites = fresh_graph(variant, _ROUNDING_OPSET if recipe.activations else 1)
    chosen = integer.choose(graph.graph, sites, recipe.activations, recipe.outputs)
    rounding = _Rounding(Emitter(graph))
    for site in sites:
        if site.name in weights:
            _replace_weight(site, weights[site.name])
        for use in site.uses:
            if use in chosen:
                dtype = integer.use_dtype(site, use)
                grid = integer.input_grid(use, recipe.activations[site.name])
                rounded = rounding.of(use.activation, grid, dtype)
                use.node.replace_input_with(use.slot.data, rounded)
                output = chosen[use]
                if output is not None:
                    rounding.of_output(use.node.outputs[0], output)
    return graph


def run_graph(
    variant: Variant, graph: ir.Model, names: Sequence[str], feed: Arrays, folder: Path
) -> dict[str, np.ndarray]:
    """Values of a graph for one feed; it is written to a temporary folder in `folder`.

    Its tensors go to a data file one by one, so that they are never in memory together.
    """
    with tempfile.TemporaryDirectory(dir=folder) as inner, _giving(graph, names):
        path = Path(inner) / "reference.onnx"
        with save.staged(graph, path, single_file_bytes=_SINGLE_FILE_BYTES) as file:
            return _run(variant, file, names, feed)


def run_file(variant: Variant, file: Path, names: Sequence[str], feed: Arrays) -> dict[str, np.ndarray]:
    """Values of a file for one feed."""
    graph = Container(file).parse()
    if {value.name for value in graph.graph.outputs} >= set(names):
        return _run(variant, file, names, feed)
    # The file does not give inner tensors: a copy that does is run.
    return run_graph(variant, graph, names, feed, file.parent)


def _run(variant: Variant, file: Path, names: Sequence[str], feed: Arrays) -> dict[str, np.ndarray]:
    runtime = variant.opened.runtime
    session = runtime.open_file(file)
    values = runtime.run(session, names, {name: to_value(array) for name, array in feed.items()})
    return {name: np.array(value.numpy()) for name, value in zip(names, values, strict=True)}


@contextlib.contextmanager
def _giving(graph: ir.Model, names: Sequence[str]) -> Iterator[None]:
    """A graph with inner tensors among its outputs, while the block lasts."""
    outputs = graph.graph.outputs
    known = {value.name for value in outputs}
    added = [v for node in graph.graph for v in node.outputs if v.name in set(names) - known]
    outputs.extend(added)
    yield
    for value in added:
        outputs.remove(value)


def difference(found: Arrays, expected: Arrays) -> float:
    """Largest difference of any output, relative to its largest expected magnitude.

    Infinite where a shape differs or a value is not finite, unless it is the same infinity.
    """
    return max((_difference(found[name], expected[name]) for name in expected), default=0.0)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype.kind != "f":
        return 0.0
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    differ = found != expected
    if not (np.isfinite(found[differ]).all() and np.isfinite(expected[differ]).all()):
        return float("inf")
    finite = np.isfinite(expected)
    scale = np.abs(expected[finite]).max(initial=0.0)
    if scale == 0 and not finite.all():
        return float("inf")
    largest = np.abs(found[differ] - expected[differ]).max(initial=0.0)
    return float(largest / scale) if scale > 0 else float(largest)


def _nudged(feed: Arrays) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: (array * (1 + _NUDGE * generator.standard_normal(array.shape))).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in feed.items()
    }


def _first_run(
    variant: Variant, graph: ir.Model, names: Sequence[str], batch: BatchLike | None, folder: Path
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """A feed that a graph can be run with, and its outputs.

    Raises:
        AdapterError: It runs with none.
    """
    failure: AdapterError | None = None
    for feed in _feeds(variant, batch):
        try:
            return feed, run_graph(variant, graph, names, feed, folder)
        except AdapterError as err:
            failure = failure or err
    raise AdapterError(
        f"{failure}; it was to be checked with made-up inputs: give data, or fix inputs with --input NAME=VALUE"
    ) from failure


def _feeds(variant: Variant, batch: BatchLike | None) -> Iterator[Arrays]:
    """The first samples of a batch, as many as the model takes at once, or noise of several shapes."""
    opened = variant.opened
    if batch is None:
        yield from inputs.noise(opened.flow, opened.all_specs, opened.constants)
        return
    group = batches.check(batch, opened.specs, str(variant.path)).groups[0]
    samples = len(next(iter(group.values())))
    first = batches.split(group, opened.batch or min(samples, _MOST_SAMPLES), fixed=True)[0]
    yield {**first.arrays, **opened.fixed(first.size)}


def _check_conversion(variant: Variant, names: Sequence[str], feed: Arrays, folder: Path) -> None:
    """Where the reference needed another operator set: the conversion alone must change nothing.

    Raises:
        AdapterError: It does.
    """
    original, _ = fresh_graph(variant, 1)
    if original.opset_imports[""] >= _ROUNDING_OPSET:
        return
    converted, _ = fresh_graph(variant, _ROUNDING_OPSET)
    outputs = [run_graph(variant, graph, names, feed, folder) for graph in (converted, original)]
    error = difference(*outputs)
    if not error <= FLOAT_TOLERANCE:
        raise AdapterError(
            f"converting {variant.path.name} to operator set {_ROUNDING_OPSET} changes what it computes by "
            f"{error:.2g} of its range; export it again with a later one"
        )


def _replace_weight(site: Site, quantized: Quantized) -> None:
    dtype = site.dtype

    def make() -> ir.Tensor:
        array = from_rows(quantized.dequantized(), site.shape, site.channel_axis)
        return ir.Tensor(array.astype(dtype.numpy(), copy=False), dtype=dtype, name=site.weight.name)

    site.weight.const_value = ir.LazyTensor(make, dtype, ir.Shape(site.shape), name=site.weight.name)


class _Rounding:
    """Values moved to grids by Div, Round, Clip and Mul."""

    def __init__(self, emitter: Emitter) -> None:
        self._emit = emitter
        self._made: dict[tuple[ir.Value, ActivationGrid], ir.Value] = {}

    def of(self, value: ir.Value, grid: ActivationGrid, dtype: ir.DataType) -> ir.Value:
        """`value` on a grid."""
        if (value, grid) not in self._made:
            self._made[value, grid] = self._make(value, grid, dtype)
        return self._made[value, grid]

    def of_output(self, value: ir.Value, grid: ActivationGrid) -> None:
        """Let all that read an output, after a Relu of its own, read it on a grid."""
        end = integer.absorbed(value)
        readers = end.uses()
        rounded = self._make(end, grid if end is value else integer.clipped(grid), ir.DataType.FLOAT)
        for node, index in readers:
            node.replace_input_with(index, rounded)

    def _make(self, value: ir.Value, grid: ActivationGrid, dtype: ir.DataType) -> ir.Value:
        after, constant = self._emit.after, self._emit.constant
        scale, zero, low, high = (constant(np.float32(v)) for v in (grid.scale, grid.zero_point, 0, grid.top))
        if dtype != ir.DataType.FLOAT:
            value = after(value, "Cast", [value], to=ir.DataType.FLOAT)
        value = after(value, "Div", [value, scale])
        value = after(value, "Round", [value])
        value = after(value, "Add", [value, zero])
        value = after(value, "Clip", [value, low, high])
        value = after(value, "Sub", [value, zero])
        value = after(value, "Mul", [value, scale])
        return value if dtype == ir.DataType.FLOAT else after(value, "Cast", [value], to=dtype)
