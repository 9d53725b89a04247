"""A written file is run, and every quantized layer compared with what it should compute.

Each layer's inputs and outputs are read from one run of the file; the same float operator with the values that
the codes stand for says what the outputs should have been. Errors of the format, such as containers that a
runtime multiplies wrongly without saying so, show here as large differences; the rounding of activations to 8
bits does not. Layers that such a run does not reach, those of other signatures and those behind operators that the
runtime lacks, are run alone, on noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.flow import Flow
from lampq.adapters.tflite.graph import Graph, Op, label
from lampq.adapters.tflite.noise import numbers_for
from lampq.adapters.tflite.operands import CALLS, CONVOLUTIONS
from lampq.adapters.tflite.places import Site
from lampq.adapters.tflite.quantize import Coded
from lampq.adapters.tflite.runtime import Session, interpreter_module
from lampq.adapters.tflite.variant import Variant
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError

# Relative difference of a layer's output beyond the rounding of its activations.
_TOLERANCE = 0.05
# How many times the expected rounding of activations is allowed.
_ROUNDING = 3.0

Place = tuple[int, int]
"""A subgraph and an operator of it."""


def verify(
    variant: Variant, path: Path, draft: Draft, coded: Sequence[Coded], inputs: BatchLike | None
) -> float:
    """Run a written file and compare its layers with the fake-quant reference.

    Args:
        variant: The float model.
        path: The written file.
        draft: How it was made.
        coded: Its quantized weights.
        inputs: Samples to run; None takes random ones.

    Returns:
        The largest relative difference of an output to that of the fake-quant model: activations that are rounded
        while running show here, however small a part of each layer's output they are. 0 where nothing could be run.

    Raises:
        AdapterError: The runtime refuses the file, an output is NaN or infinite, or a layer differs; names
            it.
    """
    verification = _Verification(variant, Graph(path.read_bytes()), draft, coded)
    verification.run(inputs)
    return verification.deviation


class _Verification:
    def __init__(self, variant: Variant, written: Graph, draft: Draft, coded: Sequence[Coded]) -> None:
        self.opened = variant.opened
        self.graph = self.opened.graph
        self.main = self.opened.interface.subgraph
        self.written = written
        self.draft = draft
        self.values = {item.weight: item.values() for item in coded}
        self.kept = {w: v for w, v in variant.weights().items() if w not in self.values}
        self.places: dict[Place, list[tuple[Coded, Site]]] = {}
        for item in coded:
            for site in item.weight.sites:
                self.places.setdefault((site.subgraph, site.op), []).append((item, site))
        fit = (output.tensor for output in self.opened.outputs.all if not output.unfit)
        self.outputs = tuple(dict.fromkeys((*variant.tensors, *fit)))
        self.deviation = 0.0

    def run(self, inputs: BatchLike | None) -> None:
        """Compare everything."""
        reached = self._reached()
        values = self._run_whole(reached, inputs)
        for (subgraph, number), items in self.places.items():
            op = self.graph.subgraphs[subgraph].ops[number]
            if op.name in CALLS:
                # What it calls cannot be cut out; it is given numbers, which the whole run has tried.
                continue
            whole = bool(values) and subgraph == self.main and number in reached
            fed = self._fed(subgraph, op)
            feeds = [values[t] if whole else numbers_for(self.graph.subgraphs[subgraph], op, t) for t in fed]
            results = [values[t] for t in op.outputs] if whole else self._alone(subgraph, op, fed, feeds)
            self._compare(subgraph, op, items, dict(zip(fed, feeds, strict=True)), results)

    def _reached(self) -> frozenset[int]:
        """Operators that a run of the main subgraph computes and whose values it can show."""
        flow = self.opened.flow
        needed = flow.needed(self.outputs)
        return frozenset() if needed & flow.calls else needed

    def _fed(self, subgraph: int, op: Op) -> tuple[int, ...]:
        """The computed inputs of an operator, weights and what is made of constants left out."""
        flow, tensors = _flow(self.graph, subgraph), self.graph.subgraphs[subgraph].tensors
        computed = (t for t in op.inputs if t not in flow.constant and not tensors[t].is_variable)
        return tuple(dict.fromkeys(computed))

    def _run_whole(self, reached: frozenset[int], inputs: BatchLike | None) -> dict[int, np.ndarray]:
        """Values of the tensors around the quantized layers, from a run of the written file; none without a run."""
        if not self.outputs:
            return {}
        opened, numbering = self.opened, self.draft.numbering(self.main)
        try:
            opened.session(self.outputs)
            sample = opened.trial(self.outputs, opened.interface.native_batch) if inputs is None else inputs
            feeds = opened.batches.chunks(opened.batches.checked(sample))[0].feeds
            expected = opened.open({**self.kept, **self.values}, self.outputs).run(feeds)
        except AdapterError:
            # The float model does not run either: it has operators that the runtime lacks, or texts for inputs.
            return {}
        plain = self._give([numbering[t] for t in self.outputs], feeds)
        self._compare_outputs(plain, expected)
        values = dict(zip(opened.interface.tensors, feeds, strict=True))
        around = [opened.main.ops[n] for s, n in self.places if s == self.main and n in reached]
        wanted = dict.fromkeys(t for op in around for t in (*self._fed(self.main, op), *op.outputs))
        tensors = [t for t in wanted if t not in values]
        if tensors:
            results = self._give([numbering[t] for t in tensors], feeds)
            values.update(zip(tensors, results, strict=True))
        return {**dict(zip(self.outputs, plain, strict=True)), **values}

    def _compare_outputs(self, results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        """Outputs must be finite where they should be, and the same where no activation is rounded on the way."""
        exact = not any(item.multiplied for items in self.places.values() for item, _ in items)
        for tensor, result, reference in zip(self.outputs, results, expected, strict=True):
            if result.dtype.kind != "f" or np.isnan(reference).any() or np.isposinf(reference).any():
                continue
            # Minus infinity is the logarithm of a probability of 0.
            if (np.isnan(result) | np.isposinf(result)).any():
                raise AdapterError("the written model gives NaN or infinity; nothing was kept")
            finite = np.isfinite(result) & np.isfinite(reference)
            difference = _norm(
                np.subtract(result, reference, dtype=np.float64, where=finite, out=np.zeros(result.shape))
            )
            self.deviation = max(self.deviation, difference / max(_norm(reference[finite]), 1e-30))
            if exact and not difference <= _TOLERANCE * _norm(reference[finite]):
                name = label(self.opened.main.tensors[tensor])
                raise AdapterError(
                    f"the written model computes something else than its codes say (output {name} differs by "
                    f"{difference:.3g}); the file was not kept"
                )

    def _give(self, outputs: list[int], feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Tensors of the written file."""
        flow = _flow(self.written, self.main)
        draft = Draft(self.written)
        needed = flow.needed(outputs)
        if not needed & (flow.calls | flow.stateful):
            fed = [self.draft.numbering(self.main)[t] for t in self.opened.interface.tensors]
            draft.keep(self.main, needed, fed, outputs)
        else:
            draft.outputs[self.main] = tuple(outputs)
            draft.promote(self.main)
        return _ran(draft, feeds)

    def _alone(
        self, subgraph: int, op: Op, fed: Sequence[int], feeds: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """What an operator of the written file makes of some inputs."""
        numbering = self.draft.numbering(subgraph)
        inputs, outputs = [numbering[t] for t in fed], [numbering[t] for t in op.outputs]
        draft = Draft(self.written)
        ops = _flow(self.written, subgraph).needed(outputs, fed=inputs)
        draft.keep(subgraph, ops, inputs, outputs)
        return _ran(draft, feeds)

    def _compare(
        self,
        subgraph: int,
        op: Op,
        items: Sequence[tuple[Coded, Site]],
        feeds: Mapping[int, np.ndarray],
        results: Sequence[np.ndarray],
    ) -> None:
        rounded = dict(feeds)
        for item, site in items:
            if item.inputs is not None and site.source is not None:
                source = op.inputs[site.source]
                rounded[source] = np.ascontiguousarray(item.inputs.apply(feeds[source]), dtype=np.float32)
        expected = self._expected(subgraph, op, rounded)
        rounding = 0.0
        for item, site in items:
            if item.multiplied and site.source is not None:
                part = _input_rounding(item, site, feeds[op.inputs[site.source]], self.values[item.weight])
                rounding = float(np.hypot(rounding, part))
            if item.outputs is not None:
                grid = item.outputs[site]
                expected = [grid.apply(values) for values in expected]
                rounding = float(np.hypot(rounding, grid.scale * np.sqrt(expected[0].size / 12)))
        for result, reference in zip(results, expected, strict=True):
            difference = _norm(np.subtract(result, reference, dtype=np.float64))
            allowed = _TOLERANCE * _norm(reference) + _ROUNDING * rounding
            if not difference <= allowed:
                names = ", ".join(dict.fromkeys(item.weight.name for item, _ in items))
                raise AdapterError(
                    f"layer {names}: the runtime computes something else than its {items[0][0].width}-bit codes "
                    f"say (difference {difference:.3g}, {allowed:.3g} allowed); the file was not kept"
                )

    def _expected(self, subgraph: int, op: Op, feeds: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """What the float operator makes of some inputs with the values that the codes stand for."""
        draft = Draft(self.graph)
        for weight, values in {**self.kept, **self.values}.items():
            if any((site.subgraph, site.op) == (subgraph, op.index) for site in weight.sites):
                draft.set_float(weight, values)
        ops = _flow(self.graph, subgraph).needed(op.outputs, fed=tuple(feeds))
        draft.keep(subgraph, ops, tuple(feeds), op.outputs)
        return Session(draft.content(), free=True).run(list(feeds.values()))


@lru_cache(maxsize=4)
def _flow(graph: Graph, subgraph: int) -> Flow:
    """A subgraph whose weights do not matter."""
    return Flow(graph, subgraph, ())


def _ran(draft: Draft, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    try:
        return Session(draft.content(), free=True).run(feeds)
    except AdapterError as err:
        old = interpreter_module().__name__.startswith("tflite_runtime")
        hint = "; tflite-runtime is too old for it: pip install ai-edge-litert" if old else ""
        raise AdapterError(f"the written model does not run, so it was not kept: {err}{hint}") from err


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
        convolution = site.op_name in CONVOLUTIONS
        flat = source.reshape(
            source.shape[0] if convolution else -1, *([-1] if convolution else source.shape[-1:])
        )
        steps = 2 * np.abs(flat).max(axis=1).astype(np.float64) / 255
        rows = source.size / source.shape[-1]
    return float(np.sqrt(np.mean(np.square(steps)) / 12 * rows * power))
