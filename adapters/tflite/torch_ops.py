"""TFLite operators in PyTorch, differentiable, one function each.

An operator gets its options, its inputs as tensors (None where an optional one is absent), and its inputs as
constants where they are. Shapes are TFLite's: channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.tflite import torch_spatial as spatial
from lampq.adapters.tflite.torch_call import Call, Function, activated


def _elementwise(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    def run(call: Call) -> torch.Tensor:
        result = function(call.tensor(0), call.tensor(1))
        fused = call.options is not None and "fused_activation_function" in call.options.values
        return activated(result, call) if fused else result

    return run


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    return lambda call: function(call.tensor(0))


def _reduction(function: Callable[..., torch.Tensor]) -> Function:
    def run(call: Call) -> torch.Tensor:
        keep = call.options is not None and bool(call.options.keep_dims)
        return function(call.tensor(0), dim=tuple(call.numbers(1)), keepdim=keep)

    return run


def _fully_connected(call: Call) -> torch.Tensor:
    x, weight = call.tensor(0), call.tensor(1)
    bias = call.inputs[2] if len(call.inputs) > 2 else None
    keep = call.options is not None and bool(call.options.keep_num_dims)
    rows = x if keep and x.shape[-1] == weight.shape[1] else x.reshape(-1, weight.shape[1])
    return activated(functional.linear(rows, weight, bias), call)


def _batch_matmul(call: Call) -> torch.Tensor:
    x, y = call.tensor(0), call.tensor(1)
    return (x.mT if call.option("adj_x") else x) @ (y.mT if call.option("adj_y") else y)


def _slice(call: Call) -> torch.Tensor:
    x, begins, sizes = call.tensor(0), call.numbers(1), call.numbers(2)
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _strided_slice(call: Call) -> torch.Tensor:
    x, begins, ends, steps = call.tensor(0), call.numbers(1), call.numbers(2), call.numbers(3)
    if (
        call.option("ellipsis_mask")
        or call.option("new_axis_mask")
        or call.option("offset")
        or min(steps) < 1
    ):
        raise UnsupportedOperatorError("STRIDED_SLICE with a negative step, an ellipsis or a new axis")
    index: list[int | slice] = []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if call.option("shrink_axis_mask") >> axis & 1:
            index.append(begin)
        else:
            first = None if call.option("begin_mask") >> axis & 1 else begin
            last = None if call.option("end_mask") >> axis & 1 else end
            index.append(slice(first, last, step))
    return x[tuple(index)]


def _reshape(call: Call) -> torch.Tensor:
    has_shape = len(call.inputs) > 1 and call.inputs[1] is not None
    return call.tensor(0).reshape(call.numbers(1) if has_shape else list(call.shape))


def _pad(call: Call) -> torch.Tensor:
    pairs = call.numbers(1)
    flat = [n for axis in reversed(range(len(pairs) // 2)) for n in pairs[2 * axis : 2 * axis + 2]]
    value = (
        float(call.constants[2].reshape(()))
        if call.name == "PADV2" and call.constants[2] is not None
        else 0.0
    )
    return functional.pad(call.tensor(0), flat, value=value)


def _gather(call: Call) -> torch.Tensor:
    if call.option("batch_dims"):
        raise UnsupportedOperatorError("GATHER with batch dimensions")
    x, index = call.tensor(0), call.tensor(1).long()
    axis = call.option("axis") % x.dim()
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _split(call: Call) -> Sequence[torch.Tensor]:
    if call.name == "SPLIT":
        return call.tensor(1).chunk(call.option("num_splits"), dim=call.numbers(0)[0])
    return torch.split(call.tensor(0), call.numbers(1), dim=call.numbers(2)[0])


def _concatenation(call: Call) -> torch.Tensor:
    parts = [call.tensor(i) for i in range(len(call.inputs))]
    return activated(torch.cat(parts, dim=call.option("axis")), call)


def _softmax(call: Call) -> torch.Tensor:
    beta = 1.0 if call.options is None else float(call.options.beta)
    return torch.softmax(call.tensor(0) * beta, dim=-1)


def _cast(call: Call) -> torch.Tensor:
    kinds = {"FLOAT32": torch.float32, "INT32": torch.int32, "INT64": torch.int64, "BOOL": torch.bool}
    if call.dtype not in kinds:
        raise UnsupportedOperatorError(f"CAST to {call.dtype}")
    return call.tensor(0).to(kinds[call.dtype])


def _dequantize(call: Call) -> torch.Tensor:
    if call.tensor(0).dtype != torch.float16:
        raise UnsupportedOperatorError("DEQUANTIZE of integers")
    return call.tensor(0).float()


def _gelu(call: Call) -> torch.Tensor:
    approximate = call.options is not None and bool(call.options.approximate)
    return functional.gelu(call.tensor(0), approximate="tanh" if approximate else "none")


def _lookup(call: Call) -> torch.Tensor:
    return call.tensor(1)[call.tensor(0).long()]


def _normalized(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    return activated(x / x.square().sum(-1, keepdim=True).clamp_min(1e-6).sqrt(), call)


def _prelu(call: Call) -> torch.Tensor:
    return torch.where(call.tensor(0) > 0, call.tensor(0), call.tensor(0) * call.tensor(1))


def _select(call: Call) -> torch.Tensor:
    return torch.where(call.tensor(0).bool(), call.tensor(1), call.tensor(2))


def _shape(call: Call) -> torch.Tensor:
    return torch.tensor(call.tensor(0).shape, dtype=torch.int32)


def _squeeze(call: Call) -> torch.Tensor:
    axes = None if call.options is None else call.options.squeeze_dims
    return (
        call.tensor(0).squeeze()
        if axes is None or len(axes) == 0
        else call.tensor(0).squeeze(tuple(map(int, axes)))
    )


OPERATORS: dict[str, Function] = {
    "ADD": _elementwise(torch.add),
    "SUB": _elementwise(torch.sub),
    "MUL": _elementwise(torch.mul),
    "DIV": _elementwise(torch.div),
    "POW": _elementwise(torch.pow),
    "MAXIMUM": _elementwise(torch.maximum),
    "MINIMUM": _elementwise(torch.minimum),
    "SQUARED_DIFFERENCE": _elementwise(lambda a, b: (a - b).square()),
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": spatial.convolution,
    "DEPTHWISE_CONV_2D": spatial.convolution,
    "AVERAGE_POOL_2D": spatial.pool,
    "MAX_POOL_2D": spatial.pool,
    "MEAN": _reduction(torch.mean),
    "SUM": _reduction(torch.sum),
    "REDUCE_MAX": _reduction(torch.amax),
    "REDUCE_MIN": _reduction(torch.amin),
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _unary(lambda x: torch.log_softmax(x, dim=-1)),
    "RELU": _unary(torch.relu),
    "RELU6": _unary(lambda x: x.clamp(0, 6)),
    "RELU_N1_TO_1": _unary(lambda x: x.clamp(-1, 1)),
    "LEAKY_RELU": lambda call: functional.leaky_relu(
        call.tensor(0), float(call.options.alpha) if call.options is not None else 0.0
    ),
    "ELU": _unary(functional.elu),
    "HARD_SWISH": _unary(functional.hardswish),
    "GELU": _gelu,
    "LOGISTIC": _unary(torch.sigmoid),
    "TANH": _unary(torch.tanh),
    "EXP": _unary(torch.exp),
    "LOG": _unary(torch.log),
    "SQRT": _unary(torch.sqrt),
    "RSQRT": _unary(torch.rsqrt),
    "SQUARE": _unary(torch.square),
    "ABS": _unary(torch.abs),
    "NEG": _unary(torch.neg),
    "SIN": _unary(torch.sin),
    "COS": _unary(torch.cos),
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": lambda call: call.tensor(0).unsqueeze(call.numbers(1)[0]),
    "TRANSPOSE": lambda call: call.tensor(0).permute(call.numbers(1)),
    "CONCATENATION": _concatenation,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "PACK": lambda call: torch.stack(
        [call.tensor(i) for i in range(len(call.inputs))], dim=call.option("axis")
    ),
    "UNPACK": lambda call: call.tensor(0).unbind(call.option("axis")),
    "GATHER": _gather,
    "PAD": _pad,
    "PADV2": _pad,
    "TILE": lambda call: call.tensor(0).repeat(call.numbers(1)),
    "BROADCAST_TO": lambda call: call.tensor(0).broadcast_to(call.numbers(1)),
    "SELECT": _select,
    "SELECT_V2": _select,
    "EQUAL": _elementwise(torch.eq),
    "NOT_EQUAL": _elementwise(torch.ne),
    "GREATER": _elementwise(torch.gt),
    "GREATER_EQUAL": _elementwise(torch.ge),
    "LESS": _elementwise(torch.lt),
    "LESS_EQUAL": _elementwise(torch.le),
    "LOGICAL_AND": _elementwise(torch.logical_and),
    "LOGICAL_OR": _elementwise(torch.logical_or),
    "LOGICAL_NOT": _unary(torch.logical_not),
    "PRELU": _prelu,
    "L2_NORMALIZATION": _normalized,
    "EMBEDDING_LOOKUP": _lookup,
    "SHAPE": _shape,
    "TRANSPOSE_CONV": spatial.transposed_convolution,
    "MIRROR_PAD": spatial.mirror_pad,
    "DEPTH_TO_SPACE": spatial.depth_to_space,
    "SPACE_TO_DEPTH": spatial.space_to_depth,
    "CAST": _cast,
    "DEQUANTIZE": _dequantize,
    "RESIZE_BILINEAR": spatial.resize,
    "RESIZE_NEAREST_NEIGHBOR": spatial.resize,
}
