"""How large a quantized model will be, before it is written: nothing is quantized, only lengths count."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import save, stream
from lampq.adapters.onnx.decisions import Decisions
from lampq.adapters.onnx.ledger import Account
from lampq.adapters.onnx.low_rank import takers
from lampq.adapters.onnx.outline import varint
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Varied
from lampq.adapters.onnx.write import Rewritten, build
from lampq.adapters.sizing import Sizing
from lampq.core.quantizing.low_rank import Compensated, LowRank
from lampq.core.quantizing.quantizer import Codes, Quantized, quantize
from lampq.core.values import packing
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.blocks import scale_count
from lampq.core.values.factors import FACTOR_BITS, factor_bytes, takes_rank
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.overhead import Overhead

_SCALE_BYTES = 4
_MID_RISE = 2


def layer_bytes(count: int, scales: int, bits: int, container: str) -> int:
    """Stored bytes of a layer: its codes and its float32 scales.

    Args:
        count: Number of weights.
        scales: Number of scales.
        bits: 1 to 8.
        container: `bitplane` or `int8`.
    """
    codes = packing.payload_bytes(count, bits) if container == "bitplane" and bits < 8 else count
    return codes + _SCALE_BYTES * scales


def rest_bytes(model: Varied, *, activations: bool) -> int:
    """Bytes of a file beside codes and scales when every weight has seven bits, which take the most nodes.

    Args:
        model: The float model.
        activations: Whether inputs are quantized too.
    """
    sites, block = model.variant.opened.sites, model.coding.block
    grids = _placeholders(sites) if activations else {}
    decisions = Decisions(
        bits=dict.fromkeys((site.name for site in sites), 7),
        container="bitplane",
        block=block,
        activations=grids,
        outputs={},
    )
    payload = sum(_payload_bytes(site, 7, "bitplane", block) for site in sites)
    return stream.file_bytes(_blank(model, decisions, {}).graph) - payload


def overhead(model: Varied, sizing: Sizing) -> Overhead:
    """What a file holds beside codes and scales, to the byte.

    The graph is made once for each option, blank, and everything new in it is put down to the layers that need it. With
    factors of low rank the nodes that read weights are new as well; without any they are those of the float model, and
    put down to their layers where there are ranks.
    In a file of two parts the names of the places of tensors count as the longest there are.

    Args:
        model: The float model.
        sizing: What is asked; layers' inputs have their statistics' ranges, and unknown steps are 2.
    """
    layers, steps = sizing.layers, sizing.steps
    columns, shapes = [], _takers(model, sizing)
    for column, option in enumerate(sizing.options):
        bits = option.activation_bits
        grids = {} if bits is None else _input_grids(model, layers, bits)
        known = {} if steps is None else dict(zip(_names(layers), steps[:, column].tolist(), strict=True))
        ranks = {name: option.rank if takes_rank(shape, option.rank) else 0 for name, shape in shapes.items()}
        columns.append(_column(model, layers, option, sizing.container, grids, known, ranks))
    return _divided(columns, len(layers))


def _takers(model: Varied, sizing: Sizing) -> dict[str, tuple[int, ...]]:
    """Layers that factors can stand beside, and the shapes of their weights; none where no option has a rank."""
    if not any(option.rank for option in sizing.options):
        return {}
    names = takers(model.variant.opened)
    return {layer.name: layer.shape for layer in sizing.layers if layer.name in names}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Column:
    """A file with all layers at one option.

    Attributes:
        rest: Bytes that no layer is charged with.
        total: Bytes in all.
        own: Bytes of each layer for itself, beside its payload.
        needs: Keys of what each layer shares.
        shared: Bytes by key.
    """

    rest: int
    total: int
    own: list[int]
    needs: list[set[Hashable]]
    shared: dict[Hashable, int]


def _column(
    model: Varied,
    layers: Sequence[Layer],
    option: Option,
    container: str,
    grids: dict[str, ActivationGrid],
    steps: dict[str, int],
    ranks: Mapping[str, int],
) -> _Column | None:
    """The file with all layers at an option.

    Args:
        model: The float model.
        layers: Those that are quantized.
        option: Their widths.
        container: How codes are stored.
        grids: Of inputs by layer name.
        steps: Distances of neighbouring integers by layer name.
        ranks: Rank of every layer that factors can stand beside, 0 for none; empty where no option has any.
    """
    bits, names = option.weight_bits, _names(layers)
    if not 2 <= bits <= 8:
        return None
    decisions = Decisions(
        bits=dict.fromkeys(names, bits),
        container=container,
        block=model.coding.block,
        activations=grids,
        outputs={},
        ranks={name: rank for name, rank in ranks.items() if rank},
    )
    rewritten = _blank(model, decisions, steps)
    ledger, total = rewritten.ledger, stream.file_bytes(rewritten.graph)
    split = save.tensor_bytes(rewritten.graph) > save.LARGEST_SINGLE_FILE
    for name, nodes in rewritten.readers.items():
        if ranks.get(name) == 0:
            ledger.accounts[name].nodes += nodes
    entries = {key: _entries(account, split) for key, account in ledger.accounts.items()}
    places = _places(rewritten.graph.graph.initializers.values()) if split else 0
    sites = {site.name: site for site in model.variant.opened.sites}
    payload = [
        _payload_bytes(sites[name], bits, container, model.coding.block)
        + factor_bytes(sites[name].shape, ranks.get(name, 0))
        for name in names
    ]
    return _Column(
        rest=total + places - sum(entries.values()) - len(varint(total)),
        total=total,
        own=[entries[name] - size for name, size in zip(names, payload, strict=True)],
        needs=[ledger.needs(name) for name in names],
        shared={key: size for key, size in entries.items() if key not in set(names)},
    )


def _divided(columns: Sequence[_Column | None], layers: int) -> Overhead:
    """Files of single options as what any plan has, each layer by itself, and what layers share."""
    made = [(index, column) for index, column in enumerate(columns) if column is not None]
    own = np.zeros((layers, len(columns)), dtype=np.int64)
    sizes: dict[Hashable, int] = {}
    for index, column in made:
        own[:, index] = column.own
        sizes |= column.shared
    masks: dict[bytes, tuple[np.ndarray, int]] = {}
    for key, size in sizes.items():
        mask = np.zeros(own.shape, dtype=np.int8)
        for index, column in made:
            mask[:, index] = [key in needs for needs in column.needs]
        if mask.any(axis=1).sum() == 1:
            own += size * mask.astype(np.int64)
        else:
            # What is always needed together counts as one.
            text = mask.tobytes()
            masks[text] = (mask, size + (masks[text][1] if text in masks else 0))
    parts = list(masks.values())
    return Overhead(
        # The length of the whole stands in front of it.
        rest_bytes=max((c.rest + len(varint(max(d.total for _, d in made))) for _, c in made), default=0),
        overhead_bytes=own,
        shared_bytes=np.array([size for _, size in parts], dtype=np.int64),
        shares=np.stack([mask for mask, _ in parts], axis=-1)
        if parts
        else np.zeros((*own.shape, 0), np.int8),
    )


def _blank(model: Varied, decisions: Decisions, steps: dict[str, int]) -> Rewritten:
    """The graph of decisions with codes of zero, as it is written."""
    rewritten = build(
        model,
        decisions,
        lambda site, bits: _ranked_zeros(
            site,
            _zeros(site, bits, decisions.block, steps.get(site.name, _MID_RISE)),
            decisions.ranks.get(site.name, 0),
        ),
    )
    save.drop_types(rewritten.graph)
    return rewritten


def _zeros(site: Site, bits: int, block: int | None, step: int) -> Quantized:
    rows = scale_count(site.shape, site.channel_axis, block)
    count = math.prod(site.shape)
    mid_rise = bits < 8 and step == _MID_RISE
    return Quantized(
        codes=np.zeros((rows, count // rows), dtype=np.uint8),
        scale=np.ones(rows, dtype=np.float32),
        step=_MID_RISE if mid_rise else 1,
        offset=(1 << bits) - 1 if mid_rise else 1 << (bits - 1),
        bits=bits,
        squared_error=np.zeros(rows),
    )


def _ranked_zeros(site: Site, weight: Quantized, rank: int) -> Codes:
    """A weight with factors of a rank, all zero."""
    if not rank:
        return weight
    outputs, inputs = (site.shape[axis] for axis in (site.channel_axis, 1 - site.channel_axis))
    outer, inner = (
        quantize(np.zeros((rank, side), dtype=np.float32), FACTOR_BITS) for side in (outputs, inputs)
    )
    factors = LowRank(outer=outer, inner=inner)
    return Compensated(weight=weight, factors=factors, squared_error=np.zeros(outputs))


def _entries(account: Account, split: bool) -> int:
    """Bytes of what is left of all that was made for an owner."""
    nodes = [node for node in account.nodes if node.graph is not None]
    values = [value for value in account.initializers if value.is_initializer()]
    places = _places(values) if split else 0
    return sum(map(stream.node_bytes, nodes)) + sum(map(stream.entry_bytes, values)) + places


def _places(values: Iterable[ir.Value]) -> int:
    """Bytes, at most, of what tells where tensors lie in a second file."""
    tensors = [value.const_value for value in values]
    return save.PLACE_BYTES * sum(tensor is not None and save.is_external(tensor) for tensor in tensors)


def _payload_bytes(site: Site, bits: int, container: str, block: int | None) -> int:
    scales = scale_count(site.shape, site.channel_axis, block)
    return layer_bytes(math.prod(site.shape), scales, bits, container)


def _input_grids(model: Varied, layers: Sequence[Layer], bits: int) -> dict[str, ActivationGrid]:
    """Grids of the layers' inputs; of the like before anything was measured."""
    seen = {layer.name: layer.activation for layer in layers if layer.activation is not None}
    if not seen:
        names = set(_names(layers))
        return _placeholders([site for site in model.variant.opened.sites if site.name in names], bits)
    return {
        name: ActivationGrid.from_range(float(inputs.min[0]), float(inputs.max[0]), bits)
        for name, inputs in seen.items()
    }


def _placeholders(sites: Sequence[Site], bits: int = 8) -> dict[str, ActivationGrid]:
    """Grids that only layers with the same input have in common."""
    read = {site.name: site.uses[0].activation.name for site in sites if site.uses}
    numbers = {value: number for number, value in enumerate(dict.fromkeys(read.values()))}
    return {name: ActivationGrid.from_range(-1.0, 1.0 + numbers[value], bits) for name, value in read.items()}


def _names(layers: Sequence[Layer]) -> list[str]:
    return [layer.name for layer in layers]
