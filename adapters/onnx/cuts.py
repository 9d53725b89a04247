"""Cut a graph into a chain of segments, so that a changed layer needs only the segments from its own on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lampq.adapters.onnx.flow import FLOATS, Flow
from lampq.adapters.onnx.sites import Site

# What one more segment costs (a session, a frontier held for every sample), as a share of the cost of a sweep
# over all layers without any reuse. It keeps chains at 10 to 30 segments.
_SEGMENT_COST = 0.001
# Each further tensor that crosses a cut counts this many segments.
_TENSOR_COST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Consecutive nodes of a flow.

    Attributes:
        nodes: The nodes.
        inputs: Values of earlier segments, or of the caller, that they read.
        outputs: Values of theirs that later segments read, and those that the flow is to give.
        keep: Names of all values that later segments still need, computed here or before.
        sites: Sites that have a use among the nodes.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    keep: frozenset[str]
    sites: tuple[Site, ...]


def cut(flow: Flow, sites: Sequence[Site], work: Mapping[str, float]) -> tuple[Segment, ...]:
    """Cut a flow where few tensors cross.

    Args:
        flow: The graph, with types inferred where they can be: a value without a type is never cut off.
        sites: Its weights.
        work: Work of each site by name, in any unit; it stands for the work of the nodes around it.

    Returns:
        Segments that, run one after another, compute the flow. Their number balances what a cut saves in a
        sweep over all sites against what it costs.
    """
    index_of = {node: i for i, node in enumerate(flow.nodes)}
    spans = _spans(flow, index_of)
    starts: dict[int, float] = {}
    for site in sites:
        # A shared weight changes everything from its first place on.
        first = min(index_of[flow.place(use.node)] for use in site.uses)
        starts[first] = starts.get(first, 0.0) + work[site.name]
    layer_at = sorted(starts)
    floats, untyped = _crossings(spans, len(flow.nodes))
    windows = [_best_cut(floats, untyped, low, high) for low, high in itertools.pairwise(layer_at)]
    chosen = _choose(windows, [starts[i] for i in layer_at])
    bounds = [0, *chosen, len(flow.nodes)]
    return tuple(_segment(flow, sites, spans, low, high) for low, high in itertools.pairwise(bounds))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Span:
    """A computed value, from the node that makes it (-1 for an input) to the last that reads it."""

    value: ir.Value
    made: int
    last: int


def _spans(flow: Flow, index_of: Mapping[ir.Node, int]) -> list[_Span]:
    last: dict[ir.Value, int] = {}
    for node, index in index_of.items():
        for value in flow.reads[node]:
            if value in flow.active:
                last[value] = index
    last |= dict.fromkeys(flow.outputs, len(index_of))
    spans = []
    for value, end in last.items():
        producer = value.producer()
        spans.append(_Span(value=value, made=-1 if producer is None else index_of[producer], last=end))
    return spans


def _crossings(spans: Sequence[_Span], count: int) -> tuple[list[int], list[int]]:
    """Float tensors, and tensors of unknown type, that cross in front of each node."""
    floats, untyped = [0] * (count + 2), [0] * (count + 2)
    for span in spans:
        tally = untyped if span.value.dtype is None else floats
        if tally is floats and span.value.dtype not in FLOATS:
            continue
        tally[span.made + 1] += 1
        tally[span.last + 1] -= 1
    return list(itertools.accumulate(floats)), list(itertools.accumulate(untyped))


def _best_cut(floats: Sequence[int], untyped: Sequence[int], low: int, high: int) -> tuple[int, float] | None:
    """Where to cut after the layer at `low` and not after the one at `high`, and what it costs in segments.

    The fewest float tensors decide, then the latest place, which leaves the least to recompute.
    """
    places = [place for place in range(low + 1, high + 1) if not untyped[place]]
    if not places:
        return None
    best = min(places, key=lambda place: (floats[place], -place))
    return best, 1.0 + _TENSOR_COST * max(0, floats[best] - 1)


def _choose(windows: Sequence[tuple[int, float] | None], work: Sequence[float]) -> list[int]:
    """The subset of cuts that makes a sweep cheapest, by dynamic programming over layers.

    A sweep runs, for every layer, all that follows the start of the layer's segment.
    """
    layers, total = len(work), sum(work) or 1.0
    before = [0.0, *itertools.accumulate(work)]
    unit = _SEGMENT_COST * layers * total
    # cheapest[k]: layers k.. when a segment starts at layer k, and where the next one starts.
    cheapest: list[tuple[float, int]] = [(0.0, layers)] * (layers + 1)
    for start in range(layers - 1, -1, -1):
        options = []
        for stop in range(start + 1, layers + 1):
            window = windows[stop - 1] if stop < layers else (0, 0.0)
            if window is not None:
                cost = (stop - start) * (total - before[start]) + unit * window[1] + cheapest[stop][0]
                options.append((cost, stop))
        cheapest[start] = min(options)
    chosen, at = [], cheapest[0][1]
    while at < layers:
        window = windows[at - 1]
        assert window is not None
        chosen.append(window[0])
        at = cheapest[at][1]
    return chosen


def _segment(flow: Flow, sites: Sequence[Site], spans: Sequence[_Span], low: int, high: int) -> Segment:
    nodes = flow.nodes[low:high]
    inside = set(nodes)
    read = {value for node in nodes for value in flow.reads[node]}
    ending = high == len(flow.nodes)
    finals = set(flow.outputs)
    crossing = [s for s in spans if s.made < high <= s.last]
    return Segment(
        nodes=nodes,
        inputs=tuple(s.value for s in spans if s.made < low and s.value in read),
        outputs=tuple(s.value for s in crossing if s.made >= low and (not ending or s.value in finals)),
        keep=frozenset(s.value.name or "" for s in crossing),
        sites=tuple(site for site in sites if any(flow.place(use.node) in inside for use in site.uses)),
    )
