"""How large a quantized model will be, before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lampq.adapters.sizing import Sizing
from lampq.adapters.torch import compressed, packed_records
from lampq.adapters.torch.variant import Variant, Varied
from lampq.adapters.torch.writing import origin
from lampq.core.values.blocks import row_block
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.overhead import Overhead

# As long as the ends of a range can be, before they are known.
_LONG_RANGE = (-1.2345678901234567e-100, -1.2345678901234567e-100)
_MID_RISE, _WIDEST = 2, 8


def overhead(model: Varied, sizing: Sizing) -> Overhead:
    """What a file or folder holds beside codes and scales, at most; see `core.measuring.model.Sized`.

    The records of a file are exact. Of the places of tensors in it the longest count, which is some bytes a tensor.
    """
    layers, options = sizing.layers, sizing.options
    rest = _rest(model.variant, layers)
    if model.variant.in_folder:
        return _in_folder(model, layers, options, rest)
    records = [
        [
            _record(model, layer, option, sizing.container, step, ends)
            for option, step, ends in zip(
                options, _row(sizing.steps, index, options), _row(sizing.ranges, index, options), strict=True
            )
        ]
        for index, layer in enumerate(layers)
    ]
    parameters = [model.variant.parameters[layer.name] for layer in layers]
    own = np.array(
        [[packed_records.record_bytes(record) for record in row] for row in records], dtype=np.int64
    ).reshape(len(layers), len(options))
    first = {name: row[0] for name, row in zip(parameters, records, strict=True)}
    header = packed_records.header_bytes(first, origin(model.variant), rest) - int(own[:, 0].sum())
    # A header is filled up to a multiple of eight bytes.
    return Overhead(rest_bytes=header + 7 + _bytes(rest), overhead_bytes=own)


def rest_bytes(model: Varied, *, activations: bool) -> int:
    """Bytes, at most, beside codes and scales of all layers, whatever their widths, their inputs rounded or not."""
    layers = model.layers()
    option = Option(weight_bits=_WIDEST, activation_bits=_WIDEST if activations else None)
    if not layers:
        return _bytes(_rest(model.variant, layers))
    whole = overhead(model, Sizing(layers=layers, options=[option], container="int8"))
    parts = [array.sum() for array in (whole.overhead_bytes, whole.shared_bytes) if array is not None]
    return whole.rest_bytes + int(sum(parts))


def _in_folder(
    model: Varied, layers: Sequence[Layer], options: Sequence[Option], rest: Mapping[str, torch.Tensor]
) -> Overhead:
    """The configuration names every layer, and describes every width once."""
    block = model.coding.block
    own = [compressed.target_bytes(model.variant.parameters[layer.name]) for layer in layers]
    blocked = [row_block(layer.shape, layer.channel_axis, block) is not None for layer in layers]
    groups = sorted({(option.weight_bits, has) for option in options for has in blocked})
    shares = np.array(
        [[[group == (option.weight_bits, has) for group in groups] for option in options] for has in blocked],
        dtype=np.int8,
    ).reshape(len(layers), len(options), len(groups))
    header = compressed.header_bytes(model.variant, rest, [layer.name for layer in layers])
    return Overhead(
        rest_bytes=_bytes(rest) + header + compressed.side_bytes(model.variant),
        overhead_bytes=np.repeat(np.array(own, dtype=np.int64)[:, None], len(options), axis=1),
        shared_bytes=np.full(len(groups), compressed.GROUP_BYTES, dtype=np.int64),
        shares=shares,
    )


def _record(
    model: Varied,
    layer: Layer,
    option: Option,
    container: str,
    step: int | None,
    ends: np.ndarray | None,
) -> packed_records.Record:
    bits, mid_rise = option.weight_bits, (step or _MID_RISE) == _MID_RISE
    spread: tuple[float, float] | None = None
    if option.activation_bits is not None and ends is not None:
        spread = (float(ends[0]), float(ends[1]))
    elif option.activation_bits is not None and layer.activation is None:
        spread = _LONG_RANGE
    form, offset = model.coding.form, (1 << bits) - 1 if mid_rise else 1 << (bits - 1)
    return packed_records.Record(
        layer=layer.name,
        bits=bits,
        step=_MID_RISE if mid_rise and form is None else 1,
        offset=offset if form is None else 0,
        shape=layer.shape,
        channel_axis=layer.channel_axis,
        block=model.coding.block,
        container=container,
        activation_bits=option.activation_bits,
        activation_range=spread,
        form=None if form is None else form.name,
    )


def _row(table: np.ndarray | None, index: int, options: Sequence[Option]) -> list[Any]:
    return [None] * len(options) if table is None else list(table[index])


def _rest(variant: Variant, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    """The tensors that are stored as they are, in type and shape alone."""
    quantized = {variant.parameters[layer.name] for layer in layers}
    names = variant.module.state_dict().keys() - quantized
    return {
        name: variant.provenance.as_stored(tensor.to("meta"))
        for name, tensor in variant.tensors.items()
        if name in names
    }


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
