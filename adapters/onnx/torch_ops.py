"""ONNX operators in PyTorch, differentiable, one function each; shapes are computed as tensors of integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.onnx import torch_images, torch_indices, torch_recurrent
from lampq.adapters.onnx.torch_call import TYPES, Call, Function


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    return lambda call: function(call.tensor(0), call.tensor(1))


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo(call: Call) -> torch.Tensor:
    function = torch.fmod if call.get("fmod", 0) else torch.remainder
    return function(call.tensor(0), call.tensor(1))


def _all_of(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    def run(call: Call) -> torch.Tensor:
        result = call.tensor(0)
        for index in range(1, len(call.inputs)):
            result = function(result, call.tensor(index))
        return result

    return run


def _reduction(function: Callable[..., torch.Tensor]) -> Function:
    def run(call: Call) -> torch.Tensor:
        axes = call.numbers(1, "axes")
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return call.tensor(0)
            axes = list(range(call.tensor(0).dim()))
        return function(call.tensor(0), dim=tuple(axes), keepdim=bool(call.get("keepdims", 1)))

    return run


def _product(call: Call) -> torch.Tensor:
    result, axes = call.tensor(0), call.numbers(1, "axes")
    for axis in range(result.dim()) if axes is None else axes:
        result = result.prod(axis, keepdim=True)
    if call.get("keepdims", 1):
        return result
    return result.squeeze(tuple(range(result.dim())) if axes is None else tuple(axes))


def _clip(call: Call) -> torch.Tensor:
    low, high = call.optional(1), call.optional(2)
    bounds = (call.get("min") if low is None else low, call.get("max") if high is None else high)
    result = call.tensor(0)
    if bounds[0] is not None:
        result = torch.maximum(result, torch.as_tensor(bounds[0], dtype=result.dtype))
    if bounds[1] is not None:
        result = torch.minimum(result, torch.as_tensor(bounds[1], dtype=result.dtype))
    return result


def _softmax(function: Callable[..., torch.Tensor]) -> Function:
    def run(call: Call) -> torch.Tensor:
        x = call.tensor(0)
        if call.version >= 13:
            return function(x, dim=call.get("axis", -1))
        # Everything from the axis on counted as one axis then.
        axis = call.get("axis", 1) % x.dim()
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


def _gemm(call: Call) -> torch.Tensor:
    a = call.tensor(0).mT if call.get("transA", 0) else call.tensor(0)
    b = call.tensor(1).mT if call.get("transB", 0) else call.tensor(1)
    result, c = (a @ b).mul(call.get("alpha", 1.0)), call.optional(2)
    return result if c is None else result + c.mul(call.get("beta", 1.0))


def _convolution(call: Call) -> torch.Tensor:
    x, weight = call.tensor(0), call.tensor(1)
    axes = weight.dim() - 2
    stride, dilation = call.get("strides", [1] * axes), call.get("dilations", [1] * axes)
    x = functional.pad(x, _padding(call, x.shape[2:], weight.shape[2:], stride, dilation))
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}.get(axes)
    if function is None:
        raise UnsupportedOperatorError(f"{call.name} over {axes} axes")
    return function(
        x, weight, call.optional(2), stride=stride, dilation=dilation, groups=call.get("group", 1)
    )


def _transposed_convolution(call: Call) -> torch.Tensor:
    weight = call.tensor(1)
    axes = weight.dim() - 2
    pads = call.get("pads", [0] * (2 * axes))
    function = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}.get(axes)
    sized = call.get("auto_pad", "NOTSET") != "NOTSET" or call.get("output_shape") is not None
    if function is None or sized or pads[:axes] != pads[axes:]:
        raise UnsupportedOperatorError("ConvTranspose with this padding")
    return function(
        call.tensor(0),
        weight,
        call.optional(2),
        stride=call.get("strides", [1] * axes),
        padding=pads[:axes],
        output_padding=call.get("output_padding", [0] * axes),
        groups=call.get("group", 1),
        dilation=call.get("dilations", [1] * axes),
    )


def _padding(
    call: Call, sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Zeros in front and behind, last axis first, as `pad` wants them."""
    automatic = call.get("auto_pad", "NOTSET")
    axes = len(sides)
    if automatic in ("NOTSET", "VALID"):
        explicit = call.get("pads", [0] * (2 * axes)) if automatic == "NOTSET" else [0] * (2 * axes)
        return [n for axis in reversed(range(axes)) for n in (explicit[axis], explicit[axis + axes])]
    padding: list[int] = []
    for side, width, step, skip in zip(sides, kernel, stride, dilation, strict=True):
        total = max(0, (math.ceil(side / step) - 1) * step + (width - 1) * skip + 1 - side)
        front = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        padding = [front, total - front, *padding]
    return padding


def _max_pool(call: Call) -> torch.Tensor:
    if call.outputs > 1 or call.get("ceil_mode", 0):
        raise UnsupportedOperatorError("MaxPool with indices or rounding up")
    x, kernel = call.tensor(0), call.get("kernel_shape")
    stride, dilation = call.get("strides", [1] * len(kernel)), call.get("dilations", [1] * len(kernel))
    x = functional.pad(x, _padding(call, x.shape[2:], kernel, stride, dilation), value=-math.inf)
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d}[len(kernel)]
    return pool(x, kernel, stride, dilation=dilation)


def _normalize_layer(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    if call.outputs > 1:
        raise UnsupportedOperatorError("LayerNormalization with statistics")
    axis = call.get("axis", -1) % x.dim()
    return functional.layer_norm(
        x, x.shape[axis:], call.tensor(1), call.optional(2), call.get("epsilon", 1e-5)
    )


def _normalize_batch(call: Call) -> torch.Tensor:
    if call.outputs > 1 or call.get("training_mode", 0):
        raise UnsupportedOperatorError("BatchNormalization in training")
    x, scale, shift, mean, variance = (call.tensor(i) for i in range(5))
    return functional.batch_norm(x, mean, variance, scale, shift, eps=call.get("epsilon", 1e-5))


def _reshape(call: Call) -> torch.Tensor:
    x, shape = call.tensor(0), call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        shape = [x.shape[axis] if side == 0 else side for axis, side in enumerate(shape)]
    return x.reshape(tuple(shape))


def _flatten(call: Call) -> torch.Tensor:
    x, axis = call.tensor(0), call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _unsqueeze(call: Call) -> torch.Tensor:
    x, axes = call.tensor(0), call.numbers(1, "axes") or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(call: Call) -> torch.Tensor:
    axes = call.numbers(1, "axes")
    return call.tensor(0).squeeze() if axes is None else call.tensor(0).squeeze(tuple(axes))


def _transpose(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    return x.permute(call.get("perm") or tuple(reversed(range(x.dim()))))


def _slice(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes, steps = call.numbers(3, "axes") or list(range(len(starts))), call.numbers(4, "steps")
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        # Python's slices have the same rules, but for the end that a backward slice includes the first with.
        last = None if step < 0 and end < -x.shape[axis] else end
        chosen = range(x.shape[axis])[start:last:step]
        if step == 1:
            x = x.narrow(axis, chosen.start, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.long))
    return x


def _gather(call: Call) -> torch.Tensor:
    x, index = call.tensor(0), call.tensor(1).long()
    axis = call.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _split(call: Call) -> Sequence[torch.Tensor]:
    x, axis = call.tensor(0), call.get("axis", 0)
    sizes = call.numbers(1, "split")
    return torch.split(x, sizes or math.ceil(x.shape[axis] / call.outputs), dim=axis)


def _concat(call: Call) -> torch.Tensor:
    return torch.cat([call.tensor(i) for i in range(len(call.inputs))], dim=call.get("axis"))


def _shape(call: Call) -> torch.Tensor:
    sides = list(call.tensor(0).shape)
    return torch.tensor(sides[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def _constant_of_shape(call: Call) -> torch.Tensor:
    value = call.get("value")
    filling = torch.zeros(1) if value is None else value
    return filling.reshape(()).expand([int(v) for v in call.tensor(0).tolist()])


def _expand(call: Call) -> torch.Tensor:
    x, shape = call.tensor(0), call.numbers(1, "shape") or []
    return x.expand(torch.broadcast_shapes(x.shape, shape))


def _cast(call: Call) -> torch.Tensor:
    code = call.get("to")
    if code not in TYPES:
        raise UnsupportedOperatorError(f"Cast to type {code}")
    return call.tensor(0).to(TYPES[code])


def _gelu(call: Call) -> torch.Tensor:
    return functional.gelu(call.tensor(0), approximate=call.get("approximate", "none"))


def _pad(call: Call) -> torch.Tensor:
    x, pads = call.tensor(0), call.numbers(1, "pads") or []
    if call.get("mode", "constant") != "constant" or call.optional(3) is not None:
        raise UnsupportedOperatorError("Pad that is not constant over all axes")
    axes = len(pads) // 2
    flat = [n for axis in reversed(range(axes)) for n in (pads[axis], pads[axis + axes])]
    value = call.optional(2)
    return functional.pad(x, flat, value=call.get("value", 0.0) if value is None else float(value))


def _einsum(call: Call) -> torch.Tensor:
    return torch.einsum(call.get("equation"), *(call.tensor(i) for i in range(len(call.inputs))))


def _range(call: Call) -> torch.Tensor:
    start, limit, step = (call.tensor(i) for i in range(3))
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


_BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": _divide, "Pow": torch.pow,
    "MatMul": torch.matmul, "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "Less": torch.lt, "LessOrEqual": torch.le, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
}  # fmt: skip

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs, "Ceil": torch.ceil, "Cos": torch.cos, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "HardSwish": functional.hardswish, "Identity": lambda x: x, "Log": torch.log,
    "Mish": functional.mish, "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal,
    "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Sin": torch.sin, "Softplus": functional.softplus,
    "Sqrt": torch.sqrt, "Tanh": torch.tanh,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True),
    "IsNaN": torch.isnan, "IsInf": torch.isinf, "Sign": torch.sign, "Round": torch.round,
    "Selu": functional.selu, "Atan": torch.atan, "Softsign": functional.softsign,
    "Size": lambda x: torch.tensor(x.numel(), dtype=torch.int64),
}  # fmt: skip

OPERATORS: dict[str, Function] = {
    **{name: _binary(function) for name, function in _BINARY.items()},
    **{name: _unary(function) for name, function in _UNARY.items()},
    "Max": _all_of(torch.maximum),
    "Min": _all_of(torch.minimum),
    "Sum": _all_of(torch.add),
    "Mod": _modulo,
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceL2": _reduction(torch.linalg.vector_norm),
    "ReduceProd": _product,
    "Clip": _clip,
    "Celu": lambda call: functional.celu(call.tensor(0), call.get("alpha", 1.0)),
    "ThresholdedRelu": lambda call: functional.threshold(call.tensor(0), call.get("alpha", 1.0), 0.0),
    "Elu": lambda call: functional.elu(call.tensor(0), call.get("alpha", 1.0)),
    "LeakyRelu": lambda call: functional.leaky_relu(call.tensor(0), call.get("alpha", 0.01)),
    "HardSigmoid": lambda call: (
        call.get("alpha", 0.2) * call.tensor(0) + call.get("beta", 0.5)
    ).clamp(0, 1),
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _max_pool,
    "LayerNormalization": _normalize_layer,
    "BatchNormalization": _normalize_batch,
    "Dropout": lambda call: call.tensor(0),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Concat": _concat,
    "Shape": _shape,
    "Constant": lambda call: call.get("value"),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": lambda call: call.tensor(0).repeat(call.numbers(1, "repeats") or []),
    "Where": lambda call: torch.where(call.tensor(0), call.tensor(1), call.tensor(2)),
    "Cast": _cast,
    "CastLike": lambda call: call.tensor(0).to(call.tensor(1).dtype),
    "Pad": _pad,
    "Einsum": _einsum,
    "Range": _range,
    **torch_images.OPERATORS,
    **torch_indices.OPERATORS,
    **torch_recurrent.OPERATORS,
}  # fmt: skip
