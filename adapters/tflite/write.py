"""A quantized model written to disk, verified by running it before it takes its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.tflite import containers, verify
from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.flatbuffer import blob_bytes, encode, padded_table_bytes
from lampq.adapters.tflite.integers import BYTE, WIDE, covering
from lampq.adapters.tflite.opened import Opened
from lampq.adapters.tflite.operands import MATMUL
from lampq.adapters.tflite.quantize import Coded, Rewriter, as_numbers, code
from lampq.adapters.tflite.variant import Variant
from lampq.adapters.tflite.weights import Weight
from lampq.core.measuring.setting import plan_rule
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.publishing import atomic_path

# Outputs further than this from those of the fake-quant model, relative to their norm, are others.
_COARSE = 0.5
# A further operator code takes no more in the tables.
_CODE_BYTES = 48


def write(
    variant: Variant,
    encode_weight: Callable[[Weight, int], Quantized],
    plan: Plan,
    path: Path,
    calibration: BatchLike | None,
) -> None:
    """Write a model quantized by a plan; see `TfliteBackend.write`.

    Args:
        variant: The model.
        encode_weight: From a weight and a width to its codes.
        plan: Widths by layer name.
        path: The file.
        calibration: Samples for the ranges of the outputs, and for the trial.
    """
    opened = variant.opened
    decisions = _decisions(opened, plan)
    coded = []
    for weight, decision in decisions:
        quantized = encode_weight(weight, decision.weight_bits)
        width = containers.container_bits(weight, decision.weight_bits, plan.container)
        inputs = _input_grid(weight, width, decision)
        coded.append(code(weight, quantized, width, inputs))
    coded = _with_output_grids(variant, coded, calibration)
    with atomic_path(path) as temporary:
        deviation = _written(variant, coded, temporary, calibration)
        if deviation > _COARSE and any(_may_be_numbers(item) for item in coded):
            # Rounding some activations while running costs more than all weights: what takes no more room goes without.
            exact = [as_numbers(item) if _may_be_numbers(item) else item for item in coded]
            _written(variant, exact, temporary, calibration)


def _may_be_numbers(item: Coded) -> bool:
    """Whether the file has room to make numbers of codes that an operator would compute with."""
    return item.multiplied and item.inputs is None and _has_room(item.weight)


def _has_room(weight: Weight) -> bool:
    """Whether files have room for a DEQUANTIZE of a weight: some width needs it, or the layer may."""
    return MATMUL in weight.op_names or not all(containers.multiplied(weight, w) for w in containers.WIDTHS)


def _written(variant: Variant, coded: list[Coded], path: Path, calibration: BatchLike | None) -> float:
    """Write a file, and how far its outputs are from those of the fake-quant model."""
    opened = variant.opened
    draft, quantized = Draft(opened.graph), {item.weight for item in coded}
    for weight, values in variant.weights().items():
        if weight not in quantized:
            draft.set_float(weight, values)
    rewriter = Rewriter(draft)
    for item in coded:
        rewriter.apply(item)
    fixed = max((item.input_bits or 0 for item in coded), default=0) or None
    with path.open("wb") as handle:
        for piece in encode(draft.model(), reserve=_table_bytes(opened, fixed)):
            handle.write(piece)
    return verify.verify(variant, path, draft, coded, calibration)


def rest_bytes(opened: Opened, fixed: int | None = None) -> int:
    """Bytes of the written file without the payload of its weights.

    Exact for files with all weights quantized: tables are padded to the room that the most demanding plan needs,
    and data lies in slots whose sizes add up.

    Args:
        opened: The model.
        fixed: Width of activations that are quantized with fixed ranges, which takes operators and scales of its own,
            or None; where a plan leaves the inputs of some layers float, this is the most it can take.
    """
    pieces = _skeleton(opened, fixed)
    reserved = padded_table_bytes(_table_bytes(opened, fixed)) - len(pieces[0])
    payload = sum(blob_bytes(1) + blob_bytes(4 * w.shape[w.channel_axis]) for w in opened.survey.weights)
    return reserved + sum(memoryview(piece).nbytes for piece in pieces) - payload


def _table_bytes(opened: Opened, fixed: int | None) -> int:
    """Bytes of the tables when every weight is quantized, with room for operators at every version."""
    names = {name for weight in opened.survey.weights for name in weight.op_names} | {"DEQUANTIZE"}
    return len(_skeleton(opened, fixed)[0]) + _CODE_BYTES * len(names) * (len(containers.WIDTHS) - 1)


def _skeleton(opened: Opened, fixed: int | None) -> list[Any]:
    """The file with all weights in the form that takes most room, one byte in place of each one's codes."""
    draft = Draft(opened.graph)
    rewriter = Rewriter(draft)
    grid = None if fixed is None else covering(-1.0, 1.0, fixed)
    for index, weight in enumerate(opened.survey.weights):
        # Scales that differ, as those of a real file do: equal ones would be stored once.
        scale = np.full(weight.shape[weight.channel_axis], 1.0 + index, dtype=np.float32)
        static = grid if grid is not None and containers.multiplied(weight, 8, grid.bits) else None
        numbers = static is None and _has_room(weight)
        rank = 2 if not numbers and MATMUL in weight.op_names else len(weight.shape)
        codes = np.zeros((1,) * rank, dtype=np.int8)
        coded = Coded(weight=weight, width=8, codes=codes, scale=scale, numbers=numbers)
        if static is not None and all(site.subgraph == opened.main.index for site in weight.sites):
            coded = dataclasses.replace(coded, inputs=static, outputs=dict.fromkeys(weight.sites, static))
        rewriter.apply(coded)
    return encode(draft.model())


def _decisions(opened: Opened, plan: Plan) -> list[tuple[Weight, PlanLayer]]:
    """The plan's decisions with the weights they are about, in the order of the model."""
    by_name = {layer.name: layer for layer in plan.layers}
    unknown = [name for name in by_name if name not in opened.weights]
    if unknown:
        raise PlanError(f"the plan is for another model: {opened.path.name} has no layer {unknown[0]}")
    decisions = []
    for weight in opened.survey.weights:
        layer = by_name.get(weight.name)
        if layer is None:
            continue
        if layer.size != int(np.prod(weight.shape, dtype=np.int64)):
            raise PlanError(
                f"layer {layer.name} has {layer.size} weights in the plan, shape {weight.shape} in the model"
            )
        if layer.activation_bits not in (None, BYTE, WIDE):
            raise AdapterError(
                f"layer {layer.name}: TFLite has activations of 8 or 16 bits, not {layer.activation_bits}"
            )
        decisions.append((weight, layer))
    return decisions


def _input_grid(weight: Weight, width: int, decision: PlanLayer) -> ActivationGrid | None:
    """The grid of a layer's input, or None where it stays float: as planned, or no operator multiplies codes there."""
    bits = decision.activation_bits
    if bits is None or not containers.multiplied(weight, width, bits):
        return None
    rule = plan_rule(decision)
    if not isinstance(rule, ActivationGrid):
        raise PlanError(
            f"layer {decision.name}: the plan has no range of its input; profile the model with --data"
        )
    return rule if bits == BYTE else covering(rule.low, rule.high, bits)


def _with_output_grids(variant: Variant, coded: list[Coded], calibration: BatchLike | None) -> list[Coded]:
    """Layers with quantized inputs get grids for their outputs, from the calibration data.

    The ranges are those of the model with quantized weights: at few bits the outputs reach further than those
    of the float model, whose ranges would cut them off.
    """
    opened, main = variant.opened, variant.opened.main
    static = [item for item in coded if item.inputs is not None]
    if not static:
        return coded
    if calibration is None:
        raise AdapterError(
            "fixed integer activations need calibration data for the ranges of the layers' outputs; "
            "give it (--data), or plan without activation widths"
        )
    sites = [site for item in static for site in item.weight.sites]
    if any(site.subgraph != main.index for site in sites):
        raise AdapterError(
            "a layer of another signature has no calibrated activations; plan without activation widths"
        )
    results = {site: main.ops[site.op].outputs[0] for site in sites}
    tensors = tuple(dict.fromkeys(results.values()))
    _ = opened.session(variant.tensors or tensors)
    session = opened.open({**variant.weights(), **{item.weight: item.values() for item in coded}}, tensors)
    low, high = dict.fromkeys(tensors, np.inf), dict.fromkeys(tensors, -np.inf)
    for chunk in opened.batches.chunks(opened.batches.checked(calibration)):
        for tensor, values in zip(tensors, session.run(chunk.feeds), strict=True):
            low[tensor] = min(low[tensor], float(values.min()))
            high[tensor] = max(high[tensor], float(values.max()))

    def with_grids(item: Coded) -> Coded:
        if item.input_bits is None:
            return item
        ranges = {site: (low[results[site]], high[results[site]]) for site in item.weight.sites}
        grids = {site: covering(*bounds, item.input_bits) for site, bounds in ranges.items()}
        return dataclasses.replace(item, outputs=grids)

    return [with_grids(item) for item in coded]
