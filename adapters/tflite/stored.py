"""The quantized weights of a TFLite file, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.kinds import infer_kind
from lampq.adapters.tflite import containers
from lampq.adapters.tflite.decoding import decoded
from lampq.adapters.tflite.flatbuffer import blob_bytes
from lampq.adapters.tflite.operands import CONVOLUTIONS
from lampq.adapters.tflite.places import Site
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.adapters.tflite.backend import TfliteModel

_INPUT_BITS = {"INT8": 8, "UINT8": 8, "INT16": 16}


def stored(model: TfliteModel) -> tuple[StoredWeight, ...]:
    """The quantized weights in the order of execution; widths are those of the containers.

    Raises:
        AdapterError: A weight's scales do not fit it, or its values are not finite.
    """
    survey = model.variant.opened.survey
    return tuple(
        _record(model, name, site, survey.stored[name]) for name, site in survey.stored_sites.items()
    )


def _record(model: TfliteModel, name: str, site: Site, width: int) -> StoredWeight:
    subgraph = model.variant.opened.graph.subgraphs[site.subgraph]
    kind = infer_kind(name, convolution=site.op_name in CONVOLUTIONS)
    try:
        values = decoded(subgraph, site.stored)
        layer = Layer.from_weight(name, values, kind=kind, channel_axis=site.axis)
    except (RecordError, AdapterError) as err:
        raise AdapterError(f"{model.path}: {err}") from err
    fed = None if site.source is None else subgraph.dtype(subgraph.ops[site.op].inputs[site.source])
    constant, scale = subgraph.constant(site.stored), subgraph.tensors[site.stored].quantization.scale
    return StoredWeight(
        layer=layer,
        weight_bits=width,
        payload_bytes=blob_bytes(np.asarray(constant).nbytes) + blob_bytes(4 * len(scale)),
        container=containers.BYTES if width == 8 else containers.DENSE,
        activation_bits=_INPUT_BITS.get(fed or ""),
    )
