"""Relevance of layers: what share of the outputs passes through each, by layer-wise relevance propagation.

Source: Ranjan and Savakis (2024), LRP-QViT, arXiv:2401.11243. Relevance starts at the predicted class and is sent back
operator by operator; it is neither made nor lost on the way, so what layers get are shares of the same whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from lampq.adapters.autograd.graph import Graph, tensors_of
from lampq.adapters.torch.recorder import record
from lampq.adapters.torch.relevance_rules import send_back
from lampq.adapters.torch.survey import survey
from lampq.adapters.torch.tape import Named, Operation, Tape, Values
from lampq.adapters.torch.uses import Use
from lampq.adapters.torch.variant import Variant
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.progress import Progress, quiet

# All activations of a pass are kept until it has gone back.
_SAMPLES = 8

Told = Callable[[int, Values], None]
"""Told of what an operator, by index, hands back to its operands, by slot."""


def propagate(
    tape: Tape,
    weights: Named,
    inputs: Named,
    outputs: Mapping[str, Head],
    count: int,
    told: Told,
    alpha: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Send relevance from the outputs back to the inputs.

    Args:
        tape: A forward pass without fused attention.
        weights: Parameters and buffers by name.
        inputs: A batch.
        outputs: The outputs to begin with, and how they are judged.
        count: Samples that count, the first of the batch.
        told: Told of every operator.
        alpha: Weight of positive parts in products with weights (`relevance_rules.send_back`).

    Returns:
        Relevance of the inputs of floating point, by name. With every output's start it adds up to the same, less
        what has ended in constants that are joined to activations, such as class tokens.

    Raises:
        AdapterError: There is no rule for an operator.
    """
    active, read = _active(tape, weights, inputs), []

    def call(index: int, operation: Operation, values: Values) -> Any:
        overwritten = operation.mutated()
        slots = dict.fromkeys(slot for _, slot in operation.reads)
        read.append({slot: values[slot].clone() if slot in overwritten else values[slot] for slot in slots})
        return operation.call(values, {})

    with torch.no_grad():
        results = tape.run(weights, inputs, call)
        relevance: Values = {}
        for name, head in outputs.items():
            slot = tape.outputs[name]
            relevance[slot] = relevance.get(slot, 0) + _start(head, results[name], count)
        for index in range(len(tape.operations) - 1, -1, -1):
            operation, operands = tape.operations[index], read.pop()
            arriving = {
                slot: relevance.pop(slot) for slot in dict.fromkeys(operation.writes) if slot in relevance
            }
            if not arriving:
                continue
            parts = send_back(operation, operands, active, arriving, alpha)
            told(index, parts)
            for slot, part in parts.items():
                relevance[slot] = relevance.get(slot, 0) + part
    return {name: relevance[slot] for name, slot in tape.inputs.items() if slot in relevance}


def module_relevance(model: Variant, batch: Batch, progress: Progress = quiet) -> dict[str, float]:
    """Relevance of every layer of a module; see `lampq.core.measuring.relevance.Relevant`.

    Raises:
        AdapterError: There is no rule for an operator, or attention is one operator without a plain form.
    """
    runtime, heads = model.runtime, {head.name: head for head in model.judged}
    names = {parameter: name for name, parameter in model.parameters.items()}
    totals, done = dict.fromkeys(model.parameters, 0.0), 0
    for chunk in runtime.chunks(batch, _SAMPLES):
        recording = runtime.recording(chunk.inputs, model.tensors, products=True)
        told = _collect(recording.tape, [use for use, _ in recording.uses], totals, names)
        propagate(recording.tape, model.tensors, chunk.inputs, heads, chunk.count, told)
        done += chunk.count
        progress("relevance", done, batch.samples)
    return {name: total / done for name, total in totals.items()}


def graph_relevance(
    graph: Graph,
    chunks: Iterable[Batch],
    heads: Iterable[Head],
    samples: int,
    progress: Progress = quiet,
) -> dict[str, float]:
    """Relevance of every weight of a rebuilt graph; see `lampq.core.measuring.relevance.Relevant`.

    Args:
        graph: The model.
        chunks: The samples in the batches that the graph takes; the last may be filled up at its end.
        heads: The judged outputs.
        samples: How many there are.
        progress: Told after every batch.

    Raises:
        AdapterError: There is no rule for an operator, or the graph decides by the values it computes.
    """
    leaves, judged = graph.weights, {head.name: head for head in heads}
    totals, done = dict.fromkeys(leaves, 0.0), 0
    for chunk in chunks:
        inputs = tensors_of(chunk)
        with torch.no_grad():
            tape, _ = record(lambda _, named: graph(named), leaves, inputs)
        if tape.obstacle is not None:
            raise AdapterError(f"relevance: {tape.obstacle} decides by the values it computes")
        uses = [use for group in survey(tape, leaves).uses.values() for use in group]
        count = min(chunk.samples, samples - done)
        propagate(
            tape, leaves, inputs, judged, count, _collect(tape, uses, totals, {name: name for name in leaves})
        )
        done += count
        progress("relevance", done, samples)
    return {name: total / samples for name, total in totals.items()}


def _collect(tape: Tape, uses: Iterable[Use], totals: dict[str, float], names: Mapping[str, str]) -> Told:
    """Adds up the magnitude of what layers hand back to their inputs."""
    at = {use.operation: use for use in uses}

    def told(index: int, parts: Values) -> None:
        use = at.get(index)
        part = None if use is None else parts.get(tape.operations[index].read_slot(use.data))
        if use is not None and part is not None:
            totals[names[use.weight]] += float(part.abs().sum(dtype=torch.float64))

    return told


def _start(head: Head, output: torch.Tensor, count: int) -> torch.Tensor:
    """One per sample: at the predicted class, shared by all positions; or else by the magnitude of the outputs."""
    if head.role == CLASSES:
        start = torch.zeros_like(output).scatter_(head.axis, output.argmax(head.axis, keepdim=True), 1.0)
    else:
        start = output.abs()
    start[count:] = 0
    whole = start.flatten(1).sum(1).clamp_min(torch.finfo(start.dtype).tiny)
    return start * (head.weight / whole).reshape(-1, *(1,) * (start.dim() - 1))


def _active(tape: Tape, weights: Named, inputs: Named) -> frozenset[int]:
    """Slots of floating point that depend on the input."""
    floating = tape.floating(weights, inputs)
    reached = set(tape.inputs.values())
    for operation in tape.operations:
        if any(slot in reached for _, slot in operation.reads):
            reached.update(operation.writes)
    return frozenset(slot for slot in reached if floating.get(slot, False))
