"""The quantized weights of a TFLite file, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.kinds import infer_kind
from lampq.adapters.tflite import containers
from lampq.adapters.tflite.flatbuffer import blob_bytes
from lampq.adapters.tflite.weights import CONV, DEPTHWISE, Site, channel_axis
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.adapters.tflite.model import TfliteModel


def stored(model: TfliteModel) -> tuple[StoredWeight, ...]:
    """The quantized weights in the order of execution; widths are those of the containers.

    Raises:
        AdapterError: A weight's scales do not fit it, or its values are not finite.
    """
    survey = model.survey
    return tuple(
        _record(model, name, site, survey.stored[name]) for name, site in survey.stored_sites.items()
    )


def _record(model: TfliteModel, name: str, site: Site, width: int) -> StoredWeight:
    subgraph = model.graph.subgraphs[site.subgraph]
    shape, record = subgraph.shape(site.stored), subgraph.tensors[site.stored]
    constant = subgraph.constant(site.stored)
    parameters = record.quantization
    scale = None if parameters is None else parameters.scale
    if constant is None or scale is None or len(scale) == 0:
        raise AdapterError(f"{model.path}: weight {name} is quantized without a scale")
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.ascontiguousarray(constant).reshape(-1).view(np.uint8)
    codes = raw if subgraph.dtype(site.stored) == "UINT8" else containers.unpack(raw, width, count)
    zero = parameters.zero_point
    along = [1] * len(shape)
    if len(scale) > 1:
        axis = int(parameters.quantized_dimension or 0)
        if not 0 <= axis < len(shape) or shape[axis] != len(scale):
            raise AdapterError(f"{model.path}: {len(scale)} scales do not fit weight {name} of shape {shape}")
        along[axis] = len(scale)
    offset = np.zeros(1) if zero is None or len(zero) != len(scale) else np.asarray(zero, dtype=np.float64)
    steps = codes[:count].astype(np.float32).reshape(shape) - offset.astype(np.float32).reshape(
        along if offset.size > 1 else [1] * len(shape)
    )
    values = steps * np.asarray(scale, dtype=np.float32).reshape(along)
    kind = infer_kind(name, convolution=site.op_name in (CONV, DEPTHWISE))
    try:
        layer = Layer.from_weight(name, values, kind=kind, channel_axis=channel_axis(model.graph, site))
    except RecordError as err:
        raise AdapterError(f"{model.path}: {err}") from err
    static = subgraph.dtype(subgraph.ops[site.op].inputs[0]) in ("INT8", "UINT8")
    return StoredWeight(
        layer=layer,
        weight_bits=width,
        payload_bytes=blob_bytes(raw.size) + blob_bytes(4 * len(scale)),
        container=containers.BYTES if width == 8 else containers.DENSE,
        activation_bits=8 if static else None,
    )
