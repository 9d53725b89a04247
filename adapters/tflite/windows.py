"""How the convolutions of a TFLite model move over their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.adapters.tflite.graph import Op, Subgraph
from lampq.adapters.tflite.operands import CONV, DEPTHWISE
from lampq.adapters.tflite.weights import Weight
from lampq.core.values.window import Window

_SAME, _AXES = 0, 4


def windows(weights: Sequence[Weight], main: Subgraph) -> dict[str, Window]:
    """By layer, those of convolutions of images; all uses of a weight that is shared must move alike."""
    return {weight.name: window for weight in weights if (window := _window(weight, main)) is not None}


def _window(weight: Weight, main: Subgraph) -> Window | None:
    if weight.op_names - {CONV, DEPTHWISE} or len(weight.shape) != _AXES:
        return None
    if any(site.subgraph != main.index for site in weight.sites):
        return None
    different = {_of_op(main, main.ops[site.op], weight) for site in weight.sites}
    return different.pop() if len(different) == 1 else None


def _of_op(main: Subgraph, op: Op, weight: Weight) -> Window | None:
    options, channels = op.options, main.shape(op.inputs[0])[-1]
    inner = 1 if op.name == DEPTHWISE else weight.shape[3]
    if options is None or channels % inner:
        return None
    sides = weight.shape[1:3]
    return Window(
        kernel=sides,
        strides=(int(options.stride_h), int(options.stride_w)),
        dilations=(int(options.dilation_h_factor), int(options.dilation_w_factor)),
        pads=None if options.padding == _SAME else ((0, 0), (0, 0)),
        groups=channels // inner,
        channels_last=True,
    )
