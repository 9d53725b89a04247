"""Write an ONNX model with the widths of a plan: one file, checked by running it, or none at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from lampq.adapters.onnx import integer, save, verify
from lampq.adapters.onnx.bits import PLAN_KEY
from lampq.adapters.onnx.decisions import Decisions
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.flow import trace
from lampq.adapters.onnx.ledger import Ledger
from lampq.adapters.onnx.low_rank import with_branches
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.products import factors
from lampq.adapters.onnx.rewrite import Rewriter
from lampq.adapters.onnx.shelf import Shelf
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Varied
from lampq.core.measuring.encoding import Encoded, coded_for, encoder
from lampq.core.quantizing.formed import Formed
from lampq.core.quantizing.low_rank import Compensated
from lampq.core.quantizing.quantizer import Codes
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import PlanError
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.plan import Plan

# Keys of what torch.onnx.export notes at nodes, values and graphs: where each came from.
_TRACES = ("pkg.", "namespace")

# The first operator sets with everything that weights need, with DequantizeLinear per channel, and with wider codes.
_WEIGHT_OPSET, _CHANNEL_OPSET, _WIDE_OPSET = 11, 13, 21
_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        size_bytes: Its size, external data included.
        relative_error: Largest difference to the fake-quantized float model, relative to its largest output.
        integer_layers: Layers that are computed with integers wherever they are used.
    """

    path: Path
    size_bytes: int
    relative_error: float
    integer_layers: tuple[str, ...]


def write(
    model: Varied,
    plan: Plan,
    path: str | Path,
    *,
    batch: BatchLike | None = None,
    output_ranges: Mapping[str, tuple[float, float]] | None = None,
    keep_traces: bool = False,
    force: bool = True,
) -> Written:
    """Write `model` with the weights quantized by `plan`, and the inputs of layers to which it gives a width.

    Args:
        model: The float model.
        plan: Widths by layer name; layers it does not list stay float.
        path: The file to write. Above 1.5 GB the tensors go to a second file beside it.
        batch: Inputs to check the file with; None makes some of noise.
        output_ranges: Smallest and largest output of convolutions by layer name. A convolution with quantized
            inputs is computed with integers if its output is quantized too: by this range, or because all its
            readers quantize what they read. Otherwise its inputs stay float.
        keep_traces: Keep what exporters note at every node (module path, source lines); in a small model that
            is a good part of the file.
        force: Overwrite an existing file.

    Raises:
        PlanError: The plan names a layer that the model has not, or gives an input a width but no range.
        OutputExistsError: The file exists and `force` is false, or its folder does not exist.
        AdapterError: The written model does not compute what it should; no file is left then.
    """
    path = Path(path)
    refuse_clashes([Output(path=path)], _files(model), force=force)
    model = coded_for(model, plan, factors=True)
    decisions = Decisions.from_plan(
        plan,
        output_ranges,
        without_input={site.name for site in model.variant.opened.sites if not site.reads_input},
        keep_traces=keep_traces,
    )
    weights: dict[str, Codes] = {}
    with Shelf(path.parent) as shelf:

        def quantized(site: Site, bits: int) -> Codes:
            encode = encoder(model, site.name, site.channel_axis)
            encoded = encode(bits, decisions.ranks.get(site.name, 0))
            weights[site.name] = _laid_down(shelf, encoded)
            return weights[site.name]

        rewritten = build(model, decisions, quantized)
        with save.staged(rewritten.graph, path) as staged:
            error = verify.check(model.variant, staged, decisions, weights, batch)
            size = save.size_bytes(staged)
    return Written(path=path, size_bytes=size, relative_error=error, integer_layers=rewritten.integer_layers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewritten:
    """A quantized graph.

    Attributes:
        graph: The graph.
        integer_layers: Layers that are computed with integers wherever they are used.
        readers: What is left of the nodes that read the weight of each layer, factors beside it left out.
        ledger: For which layer everything in it was made.
    """

    graph: ir.Model
    integer_layers: tuple[str, ...]
    readers: Mapping[str, tuple[ir.Node, ...]]
    ledger: Ledger


def _laid_down(shelf: Shelf, encoded: Encoded) -> Codes:
    """A quantized weight with its codes on a shelf."""
    assert not isinstance(encoded, Formed)  # The format refuses a coding with a form.
    if isinstance(encoded, Compensated):
        return dataclasses.replace(encoded, weight=shelf.put(encoded.weight))
    return shelf.put(encoded)


def _files(model: Varied) -> list[Path]:
    """The file of a model and those of its external data."""
    container = model.variant.opened.container
    return [container.path, *(file.path for file in container.files.values())]


def build(model: Varied, decisions: Decisions, quantized: Callable[[Site, int], Codes]) -> Rewritten:
    """The quantized graph.

    Args:
        model: The float model.
        decisions: What to do.
        quantized: Gives the weight of a site at a width.

    Raises:
        PlanError: The decisions name a layer that the model has not.
        AdapterError: The model's operator set is too old and cannot be raised.
    """
    names = {site.name for site in model.variant.opened.sites}
    unknown = [name for name in decisions.bits if name not in names]
    if unknown:
        raise PlanError(f"{model.path} has no layer {unknown[0]!r}; `lampq inspect` lists its layers")
    graph, sites = fresh_graph(model.variant, _opset(decisions))
    products = factors(trace(graph)) if decisions.factors else ()
    emit = Emitter(graph)
    ranked = {
        site.name: quantized(site, decisions.bits[site.name])
        for site in sites
        if site.name in decisions.ranks
    }
    sites, branches = with_branches(emit, sites, ranked)
    chosen = integer.choose(graph.graph, sites, decisions.activations, decisions.outputs)
    rewriter = Rewriter(emit, decisions.container, chosen)
    for branch in branches:
        if branch.layer in decisions.activations:
            rewriter.round_branch(branch, decisions.activations[branch.layer])
    listed = [site for site in sites if site.name in decisions.bits]
    for site in listed:
        weight = ranked.get(site.name) or quantized(site, decisions.bits[site.name])
        rewriter.quantize(site, weight, decisions.activations.get(site.name))
    rewriter.round_factors(products, decisions.factors)
    rewriter.finish()
    for branch in branches:
        branch.forget()
    graph.metadata_props[PLAN_KEY] = _summary(decisions)
    if not decisions.keep_traces:
        drop_traces(graph)
    integer_layers = tuple(site.name for site in listed if all(use in chosen for use in site.uses))
    return Rewritten(
        graph=graph,
        integer_layers=integer_layers,
        readers={site.name: tuple(use.node for use in site.uses) for site in listed},
        ledger=rewriter.ledger,
    )


def _opset(decisions: Decisions) -> int:
    """The first operator set that decisions can be written in."""
    if any(grid.bits > _BYTE for grid in decisions.grids):
        return _WIDE_OPSET
    return _CHANNEL_OPSET if decisions.grids else _WEIGHT_OPSET


def _summary(decisions: Decisions) -> str:
    """Widths by layer, weights and inputs, as compact JSON for the model's metadata."""
    layers = {
        name: f"w{bits}" + (f"a{decisions.activations[name].bits}" if name in decisions.activations else "")
        for name, bits in decisions.bits.items()
    }
    block = {} if decisions.block is None else {"block": decisions.block}
    return json.dumps({"container": decisions.container, **block, "layers": layers}, separators=(",", ":"))


def drop_traces(model: ir.Model) -> None:
    """Drop what exporters note at every node."""
    for graph in model.graphs():
        values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        for holder in (graph, *graph, *values):
            for key in [key for key in holder.metadata_props if key.startswith(_TRACES)]:
                del holder.metadata_props[key]
