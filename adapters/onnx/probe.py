"""How many samples a graph takes, and how often each uses a weight, from the shapes of blank runs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.onnx import parts
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site, Use
from lampq.core.values.errors import AdapterError

# A number of samples that nobody exports with, and those that people do.
_UNUSUAL = 3
_USUAL = (1, 2, 4, 8, 16, 32, 64)
# What these operators do is up to numbers that only a run computes: theirs may never end.
_LOOPS, _LOOP_LIMIT_S = ("Loop", "Scan"), 1.0
# No tensor of more numbers is a shape. Inference takes 60 bytes to follow one of them: of a ViT-B with packed weights
# that was 5 GB.
_MOST_ENTRIES = 1024
_OPAQUE = "lampq.opaque"


def infer_types(flow: Flow) -> None:
    """Complete types and shapes of the values of a graph, as far as the operators' definitions tell.

    Shapes that the file states for inner values are dropped first: exporters leave stale ones.
    """
    nodes = list(flow.model.graph)
    _drop_shapes(nodes)
    constant = [node for node in nodes if not any(value in flow.active for value in node.outputs)]
    if not constant:
        _infer(flow.model)
        return
    _infer(flow.model, numbers=False)
    large = [node for node in constant if any(_entries(value) > _MOST_ENTRIES for value in node.outputs)]
    _drop_shapes(set(nodes) - set(large))
    with _opaque(flow.model, large):
        _infer(flow.model)


def _drop_shapes(nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def _infer(model: ir.Model, *, numbers: bool = True) -> None:
    """Infer types and shapes, following the numbers of small tensors or not."""
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=numbers)(model)
    # Inference is a help, not a judge: what it cannot type is not cut.
    except Exception:
        return


def _entries(value: ir.Value) -> int:
    """Numbers in a tensor, as far as its shape is known."""
    return math.prod(d for d in value.shape.dims if isinstance(d, int)) if value.shape is not None else 0


@contextlib.contextmanager
def _opaque(model: ir.Model, nodes: Sequence[ir.Node]) -> Iterator[None]:
    """Nodes whose results keep the types they have, while the block lasts: inference knows no such operators."""
    domains = [node.domain for node in nodes]
    model.graph.opset_imports[_OPAQUE] = 1
    for node in nodes:
        node.domain = _OPAQUE
    try:
        yield
    finally:
        for node, domain in zip(nodes, domains, strict=True):
            node.domain = domain
        del model.graph.opset_imports[_OPAQUE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What blank runs tell of a graph.

    Attributes:
        batch: Samples per run where the graph takes just one number of them, or None where it takes any.
        positions: By layer name: multiply-accumulates per sample over weights.
    """

    batch: int | None
    positions: Mapping[str, int]


def measure_usage(
    flow: Flow,
    sites: Sequence[Site],
    runtime: Runtime,
    feeds: Callable[[int], Mapping[str, np.ndarray]],
    batch: int | None,
) -> Usage:
    """Run a graph on blank samples and look at the shapes.

    A batch axis that the file calls free may not be: tracing has often fixed the number of samples inside. An
    odd number that no export uses tells. Nor need the outputs have one row per sample: then samples are run
    singly. Weights are zeros, so that nothing is read from the files.

    Args:
        flow: The graph.
        sites: Its weights.
        runtime: How sessions are opened.
        feeds: Gives blank inputs of some samples.
        batch: Samples per run where the file fixes them.

    Raises:
        AdapterError: The runtime cannot run the graph.
    """
    counted = {site.name: [use for use in site.uses if _is_counted(flow, use)] for site in sites}
    values = [_measured(use) for uses in counted.values() for use in uses]
    values = list(dict.fromkeys([*flow.outputs, *values]))
    shapes = _shape_runs(flow, sites, runtime, feeds, values)
    sides, samples = _first_that_runs(shapes, (batch,) if batch else (_UNUSUAL, *_USUAL))
    free = batch is None and samples == _UNUSUAL
    if free and any(sides[value][:1] != (samples,) for value in flow.outputs):
        free, (sides, samples) = False, _first_that_runs(shapes, (1,))
    sizes = {value: math.prod(shape) for value, shape in sides.items()}
    positions = {
        name: sum(sizes[_measured(use)] // (use.slot.per_position * samples) for use in uses)
        for name, uses in counted.items()
    }
    return Usage(batch=None if free else samples, positions=positions)


def measure_shapes(
    flow: Flow,
    sites: Sequence[Site],
    runtime: Runtime,
    feeds: Callable[[int], Mapping[str, np.ndarray]],
    values: Sequence[ir.Value],
    batch: int | None,
) -> tuple[Mapping[ir.Value, tuple[int, ...]], int]:
    """Shapes of values in a blank run, and of how many samples that was; see `measure_usage`.

    Raises:
        AdapterError: The runtime cannot run the graph.
    """
    shapes = _shape_runs(flow, sites, runtime, feeds, values)
    return _first_that_runs(shapes, (batch,) if batch else (_UNUSUAL, *_USUAL))


def _shape_runs(
    flow: Flow,
    sites: Sequence[Site],
    runtime: Runtime,
    feeds: Callable[[int], Mapping[str, np.ndarray]],
    values: Sequence[ir.Value],
) -> Callable[[int], dict[ir.Value, tuple[int, ...]]]:
    """From a number of samples to the shapes of values in a run of as many blank ones."""
    model = parts.build(
        flow, flow.nodes, inputs=flow.inputs, outputs=values, open_sites=sites, shapes_only=True
    )
    session = runtime.open_part(model, optimize=False)
    weights = {parts.weight_input(site): to_value(np.zeros(site.shape, dtype=np.float32)) for site in sites}
    names = [f"{value.name}__shape" for value in values]
    endless = any(node.op_type in _LOOPS for node in flow.nodes)
    deadline = time.monotonic() + _LOOP_LIMIT_S

    def shapes(samples: int) -> dict[ir.Value, tuple[int, ...]]:
        inputs = {name: to_value(array) for name, array in feeds(samples).items()}
        # All tries share the limit, and the last of them get a moment.
        limit_s = max(0.01, deadline - time.monotonic()) if endless else None
        results = runtime.run(session, names, weights | inputs, limit_s=limit_s)
        return {v: tuple(r.numpy().tolist()) for v, r in zip(values, results, strict=True)}

    return shapes


def _first_that_runs(
    shapes: Callable[[int], dict[ir.Value, tuple[int, ...]]], counts: Sequence[int]
) -> tuple[dict[ir.Value, tuple[int, ...]], int]:
    """The shapes for the first number of samples that the graph runs with, and that number."""
    first: AdapterError | None = None
    for samples in counts:
        try:
            return shapes(samples), samples
        except AdapterError as err:
            first = first or err
    assert first is not None
    raise first


def _is_counted(flow: Flow, use: Use) -> bool:
    """Whether shapes tell how often a weight is used: not where it multiplies nothing, or in a body."""
    return bool(use.slot.per_position) and use.node not in flow.places


def _measured(use: Use) -> ir.Value:
    """The value whose size tells how often the weight is used."""
    return use.node.outputs[0] if use.slot.form == "conv" else use.activation
