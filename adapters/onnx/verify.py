"""Run a written model and compare it with what it should compute."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.onnx import batches, integer, pieces, save
from lampq.adapters.onnx.container import Container, one_line
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.session import to_value
from lampq.adapters.onnx.shelf import Codes
from lampq.adapters.onnx.sites import Site
from lampq.core.quantizing.quantizer import from_rows
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

if TYPE_CHECKING:
    from lampq.adapters.onnx.model import OnnxModel
    from lampq.adapters.onnx.write import Recipe

# Weights alone differ by the order of sums. Rounded inputs may tip to the next code and drag others along.
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
# What a nudge of the input by the precision of float32 is, and what no nudge excuses.
_NUDGE, _GARBAGE = 1e-6, 0.5

# The first operator set with Round, and with Clip between values that are inputs.
_ROUNDING_OPSET = 11

# Samples of noise, and the most of a given batch: one run must not take the memory of a whole data set.
_SAMPLES, _MOST_SAMPLES = 2, 32

# References with more bytes of tensors are run from a data file.
_SINGLE_FILE_BYTES = 1 << 24

# Models with more bytes of float weights are run piece by piece.
WHOLE_BYTES = 1 << 27

# Lengths to try along an axis that the model leaves open: an image, or a sequence.
_IMAGE_SIDE, _LENGTH = 224, 16


def check(
    model: OnnxModel,
    written: Path,
    recipe: Recipe,
    weights: Mapping[str, Codes],
    batch: np.ndarray | None,
) -> float:
    """Compare a written model with the float one, weights and inputs rounded in float arithmetic.

    Args:
        model: The float model.
        written: The file.
        recipe: What was done to it.
        weights: The quantized weights by layer name.
        batch: Inputs, samples first; None makes some of noise.

    Returns:
        The largest difference of any output, relative to the largest magnitude of that output.

    Raises:
        AdapterError: It exceeds the tolerance, an output is not finite, or the file does not run.
    """
    spec = model.input_spec
    folder = written.parent
    graph = reference(model, recipe, weights)
    if batch is None:
        feed, expected = _run_noise(model, graph, folder)
    else:
        feed = _one_run(batches.check(batch, spec, str(model.path)), spec)
        expected = run_graph(model, graph, feed, folder)
    if recipe.activations:
        _check_conversion(model, feed, folder)
    error = difference(run_file(model, written, feed), expected)
    tolerance = INTEGER_TOLERANCE if recipe.activations else FLOAT_TOLERANCE
    if tolerance < error < _GARBAGE and recipe.activations and feed.dtype.kind == "f":
        # A deep model of few bits may amplify the last bit of a float as much: ask the reference itself.
        nudge = 1 + _NUDGE * np.random.default_rng(0).standard_normal(feed.shape)
        nudged = (feed * nudge).astype(feed.dtype)
        tolerance = max(tolerance, 2 * difference(run_graph(model, graph, nudged, folder), expected))
    if not error <= min(tolerance, _GARBAGE):
        raise AdapterError(
            f"the quantized {model.path.name} does not compute what it should: an output is off by "
            f"{error:.2g} of its range, and at most {tolerance:.2g} would be right; nothing was written"
        )
    return error


def reference(model: OnnxModel, recipe: Recipe, weights: Mapping[str, Codes]) -> ir.Model:
    """The float model with rounded weights, and with inputs rounded by elementary arithmetic.

    Nothing in it is a quantization operator, so no runtime treats it as a quantized model.
    """
    graph, sites = fresh_graph(model, _ROUNDING_OPSET if recipe.activations else 1)
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


def noise(spec: InputSpec) -> np.ndarray:
    """Normal noise that fits an input, or small integers; open axes are as long as an image or a sequence."""
    open_length = _IMAGE_SIDE if len(spec.shape) == 4 else _LENGTH
    shape = (spec.batch or _SAMPLES, *(dim or open_length for dim in spec.shape[1:]))
    generator = np.random.default_rng(0)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def run_graph(model: OnnxModel, graph: ir.Model, feed: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """All outputs of a graph for one input.

    A large one is run piece by piece; another is written to a temporary folder in `folder`, its tensors one by one.
    """
    if _is_large(model):
        return pieces.run(graph, model._opened.runtime, _logits(model), feed)
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        path = Path(inner) / "reference.onnx"
        with save.staged(graph, path, single_file_bytes=_SINGLE_FILE_BYTES) as file:
            return run_file(model, file, feed)


def run_file(model: OnnxModel, file: Path, feed: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of a file for one input; of a large one those that depend on it.

    A large file is read as it lies on disk, held against the rules of ONNX, and run piece by piece: a session of the
    whole, which others will open, is not.
    """
    if _is_large(model):
        written = Container(file).parse()
        _check_rules(written, file)
        return pieces.run(written, model._opened.runtime, _logits(model), feed)
    runtime = model._opened.runtime
    session = runtime.open_file(file)
    names = [output.name for output in session.get_outputs()]
    values = runtime.run(session, names, {model.input_spec.name: to_value(feed)})
    return {name: np.array(value.numpy()) for name, value in zip(names, values, strict=True)}


def _check_rules(written: ir.Model, file: Path) -> None:
    """That a file is a valid model, weights apart.

    Raises:
        AdapterError: It is none.
    """
    try:
        passes.CheckerPass()(written)
    except onnx.checker.ValidationError as err:
        raise AdapterError(f"the quantized {file.name} is no valid ONNX model: {one_line(err)}") from err


def _is_large(model: OnnxModel) -> bool:
    return model.file_bytes() > WHOLE_BYTES


def _logits(model: OnnxModel) -> str:
    return model._opened.flow.output.name or ""


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Largest difference of any output, relative to its largest expected magnitude.

    Infinite where a shape differs, or a value is infinite or NaN in one of the two alone.
    """
    return max(_difference(found[name], expected[name]) for name in expected)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype.kind != "f":
        return 0.0
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    # What the float model itself makes infinite or NaN is right where the written one does so too.
    ordinary = np.isfinite(expected)
    if not np.array_equal(found[~ordinary], expected[~ordinary], equal_nan=True):
        return float("inf")
    found, expected = found[ordinary], expected[ordinary]
    if not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(expected).max(initial=0.0)
    largest = np.abs(found - expected).max(initial=0.0)
    return float(largest / scale) if scale > 0 else float(largest)


def _one_run(batch: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The first samples of a batch, as many as the model takes at once; the last is repeated if need be."""
    count = spec.batch or min(len(batch), _MOST_SAMPLES)
    return np.ascontiguousarray(batch[np.minimum(np.arange(count), len(batch) - 1)])


def _run_noise(model: OnnxModel, graph: ir.Model, folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Noise that a graph can be run with, and its outputs."""
    feed = noise(model.input_spec)
    try:
        return feed, run_graph(model, graph, feed, folder)
    except AdapterError:
        # Some exports say that the batch is free and mean one sample.
        if model.input_spec.batch is not None:
            raise
        return feed[:1], run_graph(model, graph, feed[:1], folder)


def _check_conversion(model: OnnxModel, feed: np.ndarray, folder: Path) -> None:
    """Where the reference needed another operator set: the conversion alone must change nothing.

    Raises:
        AdapterError: It does.
    """
    original, _ = fresh_graph(model, 1)
    if original.opset_imports[""] >= _ROUNDING_OPSET:
        return
    converted, _ = fresh_graph(model, _ROUNDING_OPSET)
    outputs = [run_graph(model, graph, feed, folder) for graph in (converted, original)]
    error = difference(*outputs)
    if not error <= FLOAT_TOLERANCE:
        raise AdapterError(
            f"converting {model.path.name} to operator set {_ROUNDING_OPSET} changes what it computes by "
            f"{error:.2g} of its range; export it again with a later one"
        )


def _replace_weight(site: Site, quantized: Codes) -> None:
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
