"""A written file is run, and every quantized layer compared with what it should compute.

Each layer's input and output are read from one run of the file; the same float operator with the values that
the codes stand for says what the output should have been. Errors of the format, such as containers that a
runtime multiplies wrongly without saying so, show here as large differences; the rounding of activations to 8
bits does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.tflite.quantize import Coded
from lampq.adapters.tflite.runtime import Session, interpreter_module
from lampq.adapters.tflite.weights import CONV, DEPTHWISE, Site
from lampq.core.values.errors import AdapterError

if TYPE_CHECKING:
    from lampq.adapters.tflite.opened import Opened

# Relative difference of a layer's output beyond the rounding of its activations.
_TOLERANCE = 0.05
# How many times the expected rounding of activations is allowed.
_ROUNDING = 3.0


def verify(
    opened: Opened, path: Path, draft: Draft, coded: Sequence[Coded], inputs: np.ndarray | None
) -> None:
    """Run a written file and compare its layers with the fake-quant reference.

    Args:
        opened: The float model.
        path: The written file.
        draft: How it was made.
        coded: Its quantized weights.
        inputs: Samples to run; None takes random ones.

    Raises:
        AdapterError: The runtime refuses the file, an output is NaN or infinite, or a layer differs; names
            it.
    """
    main, batches = opened.interface.subgraph, opened.batches
    graph = Graph(path.read_bytes())
    sample = (
        batches.trial(opened.interface.native_batch)
        if inputs is None
        else batches.chunks(batches.checked(inputs))[0]
    )
    numbering = draft.numbering(main)
    ops = opened.main.ops
    places = [(item, site) for item in coded for site in item.weight.sites if site.subgraph == main]
    wanted = [opened.interface.logits]
    for _, site in places:
        wanted += [ops[site.op].inputs[0], ops[site.op].outputs[0]]
    given = {opened.interface.input: sample}
    tensors = tuple(dict.fromkeys(tensor for tensor in wanted if tensor not in given))
    plain = _run(graph, main, [numbering[opened.interface.logits]], sample)[0]
    if opened.interface.output_scale is None and (np.isnan(plain) | np.isposinf(plain)).any():
        raise AdapterError("the written model gives NaN or infinity; nothing was kept")
    found = _run(graph, main, [numbering[tensor] for tensor in tensors], sample)
    values = {**dict(zip(tensors, found, strict=True)), **given}
    for item, site in places:
        op = ops[site.op]
        _compare(opened, item, site, values[op.inputs[0]], values[op.outputs[0]])


def _run(graph: Graph, main: int, outputs: list[int], sample: np.ndarray) -> list[np.ndarray]:
    draft = Draft(graph)
    draft.outputs[main] = tuple(outputs)
    draft.promote(main)
    try:
        return Session(draft.content()).run([sample])
    except AdapterError as err:
        old = interpreter_module().__name__.startswith("tflite_runtime")
        hint = "; tflite-runtime is too old for it: pip install ai-edge-litert" if old else ""
        raise AdapterError(f"the written model does not run, so it was not kept: {err}{hint}") from err


def _compare(opened: Opened, item: Coded, site: Site, source: np.ndarray, result: np.ndarray) -> None:
    op = opened.main.ops[site.op]
    weight = item.values()
    fed = source if item.inputs is None else item.inputs.apply(source)
    session = opened.cuts.session(
        op.index, op.index + 1, (op.inputs[0],), (op.outputs[0],), {item.weight: weight}
    )
    expected = session.run([np.ascontiguousarray(fed, dtype=np.float32)])[0]
    rounding = _input_rounding(item, site, source, weight)
    if item.outputs is not None:
        grid = item.outputs[site]
        expected = grid.apply(expected)
        rounding = float(np.hypot(rounding, grid.scale * np.sqrt(expected.size / 12)))
    difference = _norm(np.subtract(result, expected, dtype=np.float64))
    allowed = _TOLERANCE * _norm(expected) + _ROUNDING * rounding
    if not difference <= allowed:
        raise AdapterError(
            f"layer {item.weight.name}: the runtime computes something else than its {item.width}-bit codes "
            f"say (difference {difference:.3g}, {allowed:.3g} allowed); the file was not kept"
        )


def _norm(values: np.ndarray) -> float:
    # Garbage may be so large that its square is no float32.
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))


def _input_rounding(item: Coded, site: Site, source: np.ndarray, weight: np.ndarray) -> float:
    """Expected norm of the output's error from rounding the inputs to 8 bits: independent uniform errors."""
    power = _norm(weight) ** 2
    if item.inputs is not None:
        steps = np.full(1, item.inputs.scale)
        rows = source.size / max(1, source.shape[-1])
    else:
        # Runtimes take one step per row of a linear layer, one per image of a convolution.
        convolution = site.op_name in (CONV, DEPTHWISE)
        flat = source.reshape(
            source.shape[0] if convolution else -1, *([-1] if convolution else source.shape[-1:])
        )
        steps = 2 * np.abs(flat).max(axis=1).astype(np.float64) / 255
        rows = source.size / source.shape[-1]
    return float(np.sqrt(np.mean(np.square(steps)) / 12 * rows * power))
