"""How many samples a graph takes, and how often each uses a weight, from the shapes of blank runs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.onnx import parts
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site, Use
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

# A number of samples that nobody exports with, and those that people do.
_UNUSUAL = 3
_USUAL = (1, 2, 4, 8, 16, 32, 64)
# What these operators do is up to numbers that only a run computes: theirs may never end.
_LOOPS, _LOOP_LIMIT_S = ("Loop", "Scan"), 1.0
_MOST_ENTRIES = 1 << 28


def infer_types(flow: Flow) -> None:
    """Complete types and shapes of the values of a graph, as far as the operators' definitions tell.

    Shapes that the file states for inner values are dropped first: exporters leave stale ones.
    """
    for node in flow.model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(flow.model)
    # Inference is a help, not a judge: what it cannot type is not cut.
    except Exception:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What blank runs tell of a graph.

    Attributes:
        batch: Samples per run where the graph takes just one number of them, or None where it takes any.
        positions: By layer name: multiply-accumulates per sample over weights.
    """

    batch: int | None
    positions: Mapping[str, int]


def measure_usage(flow: Flow, sites: Sequence[Site], runtime: Runtime, spec: InputSpec) -> Usage:
    """Run a graph on blank samples and look at the shapes.

    A batch axis that the file calls free may not be: tracing has often fixed the number of samples inside. An
    odd number that no export uses tells. Weights are zeros, so that nothing is read from the files.

    Args:
        flow: The graph.
        sites: Its weights.
        runtime: How sessions are opened.
        spec: Its input, all axes but the first of known length.

    Raises:
        AdapterError: The runtime cannot run the graph.
    """
    measured = list(dict.fromkeys([flow.output, *(_measured(use) for site in sites for use in site.uses)]))
    model = parts.build(
        flow, flow.nodes, inputs=flow.inputs, outputs=measured, open_sites=sites, shapes_only=True
    )
    session = runtime.open_part(model, optimize=False)
    weights = {parts.weight_input(site): to_value(np.zeros(site.shape, dtype=np.float32)) for site in sites}
    names = [f"{value.name}__shape" for value in measured]
    endless = any(node.op_type in _LOOPS for node in flow.nodes)
    deadline = time.monotonic() + _LOOP_LIMIT_S

    def sizes(samples: int) -> dict[ir.Value, int]:
        needed = samples * math.prod(d or 1 for d in spec.shape[1:])
        if needed > _MOST_ENTRIES:
            raise AdapterError(f"{runtime.name}: {samples} samples of its input have {needed:,} entries")
        # All tries share the limit, and the last of them get a moment.
        limit_s = max(0.01, deadline - time.monotonic()) if endless else None
        blank = np.zeros((samples, *(d or 1 for d in spec.shape[1:])), dtype=spec.dtype)
        shapes = runtime.run(session, names, weights | {spec.name: to_value(blank)}, limit_s=limit_s)
        return {
            v: math.prod(int(d) for d in shape.numpy()) for v, shape in zip(measured, shapes, strict=True)
        }

    found, samples = None, spec.batch or _UNUSUAL
    try:
        found = sizes(samples)
    except AdapterError:
        if spec.batch is not None:
            raise
        for samples in _USUAL:
            with contextlib.suppress(AdapterError):
                found = sizes(samples)
                break
        if found is None:
            raise
    free = spec.batch is None and samples == _UNUSUAL
    return Usage(
        batch=None if free else samples,
        positions={site.name: sum(_positions(use, found, samples) for use in site.uses) for site in sites},
    )


def _positions(use: Use, sizes: Mapping[ir.Value, int], samples: int) -> int:
    per_position = use.slot.per_position
    return sizes[_measured(use)] // (per_position * samples) if per_position else 0


def _measured(use: Use) -> ir.Value:
    """The value whose size tells how often the weight is used."""
    return use.node.outputs[0] if use.slot.form == "conv" else use.activation
