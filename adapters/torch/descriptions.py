"""Outputs described by the tape that makes them: the operator each comes from, in ONNX's words."""

from __future__ import annotations

from collections.abc import Mapping

from lampq.adapters.torch.tape import Operation, Tape

# ATen -> ONNX; what is not here keeps its own name.
_ONNX = {
    "_softmax": "Softmax",
    "_safe_softmax": "Softmax",
    "_log_softmax": "LogSoftmax",
    "sigmoid": "Sigmoid",
    "hardsigmoid": "HardSigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "exp": "Exp",
    "abs": "Abs",
    "sqrt": "Sqrt",
    "pow": "Pow",
    "softplus": "Softplus",
    "gelu": "Gelu",
    "addmm": "Gemm",
    "mm": "MatMul",
    "bmm": "MatMul",
    "baddbmm": "MatMul",
    "linear": "Gemm",
    "mv": "MatMul",
    "convolution": "Conv",
    "native_layer_norm": "LayerNormalization",
    "native_group_norm": "GroupNormalization",
    "native_batch_norm": "BatchNormalization",
    "_native_batch_norm_legit_no_training": "BatchNormalization",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "cat": "Concat",
    "embedding": "Gather",
    "gather": "Gather",
    "index": "Gather",
    "upsample_bilinear2d": "Resize",
    "upsample_nearest2d": "Resize",
    "upsample_bicubic2d": "Resize",
    "argmax": "ArgMax",
    "argmin": "ArgMin",
    "topk": "TopK",
    "sort": "TopK",
    "nonzero": "NonZero",
    "nms": "NonMaxSuppression",
    "round": "Round",
    "floor": "Floor",
    "ceil": "Ceil",
    "sign": "Sign",
    "sgn": "Sign",
    "eq": "Equal",
    "lt": "Less",
    "gt": "Greater",
    "le": "LessOrEqual",
    "ge": "GreaterOrEqual",
    "_unique2": "Unique",
}
_NORMS = frozenset({"aten::linalg_vector_norm", "aten::norm"})
_BOUNDS = frozenset({"aten::clamp_min", "aten::clamp", "aten::add", "aten::maximum", "aten::expand"})
_ROOTS = frozenset({"aten::sqrt", "aten::pow"})
_SQUARES = frozenset({"aten::pow", "aten::mul", "aten::square"})
_AXIS_AT = {"aten::_softmax": 1, "aten::_safe_softmax": 1, "aten::_log_softmax": 1}


def producer(tape: Tape, slot: int) -> tuple[str, int | None]:
    """The operator that a tensor comes from by its ONNX name, and the axis that it runs along where it has one.

    What only lays numbers out anew is looked through; the axis is then known only where the layout stayed.
    """
    makers = {made: operation for operation in tape.operations for made in operation.writes}
    operation = makers.get(slot)
    moved = False
    while operation is not None and operation.rearranges and operation.reads:
        source = operation.reads[0][1]
        moved = moved or not _same_layout(operation)
        operation = makers.get(source)
    if operation is None:
        return "", None
    norm = _normalization(operation, makers)
    if norm is not None:
        return "LpNormalization", None if moved else norm
    axis = _axis(operation)
    return onnx_name(_before_bias(operation, makers, tape).name), None if moved else axis


def onnx_name(name: str) -> str:
    """ONNX's name of an operator.

    >>> onnx_name("aten::addmm"), onnx_name("aten::relu_"), onnx_name("aten::erfinv")
    ('Gemm', 'Relu', 'erfinv')
    """
    short = name.rpartition("::")[2]
    return _ONNX.get(short) or _ONNX.get(short.removesuffix("_")) or short


def _same_layout(operation: Operation) -> bool:
    return operation.name in (
        "aten::_to_copy",
        "aten::clone",
        "aten::detach",
        "aten::contiguous",
        "aten::alias",
    )


def _axis(operation: Operation) -> int | None:
    at = _AXIS_AT.get(operation.name)
    return None if at is None else int(operation.leaves[at])


def _before_bias(operation: Operation, makers: Mapping[int, Operation], tape: Tape) -> Operation:
    """The product that a bias, a weight of its own, is added to, or the operator itself."""
    if operation.name not in ("aten::add", "aten::add_"):
        return operation
    weights = set(tape.weights.values())
    reads = [slot for _, slot in operation.reads]
    if len(reads) != 2 or not weights.intersection(reads):
        return operation
    before = makers.get(next((slot for slot in reads if slot not in weights), -1))
    while before is not None and before.rearranges and before.reads:
        before = makers.get(before.reads[0][1])
    products = ("aten::mm", "aten::bmm", "aten::convolution")
    return before if before is not None and before.name in products else operation


def _normalization(operation: Operation, makers: Mapping[int, Operation]) -> int | None:
    """Axis of a division of a tensor by its own length, or None."""
    if operation.name not in ("aten::div", "aten::div_") or len(operation.reads) != 2:
        return None
    whole, slot = operation.reads[0][1], operation.reads[1][1]
    length = _past(makers.get(slot), makers, _BOUNDS)
    if length is not None and length.name in _NORMS:
        return _reduced(length) if length.reads[0][1] == whole else None
    # Or spelled out: the root of the sum of squares.
    total = _past(length, makers, _ROOTS | _BOUNDS)
    if length is total or total is None or total.name != "aten::sum":
        return None
    square = makers.get(total.reads[0][1])
    squared = square is not None and square.name in _SQUARES and {s for _, s in square.reads} == {whole}
    return _reduced(total) if squared else None


def _past(
    operation: Operation | None, makers: Mapping[int, Operation], names: frozenset[str]
) -> Operation | None:
    """The first operator backwards that does more than lay numbers out, and is none of these."""
    while operation is not None and (operation.rearranges or operation.name in names) and operation.reads:
        operation = makers.get(operation.reads[0][1])
    return operation


def _reduced(operation: Operation) -> int:
    """The axis that an operator sums over; the last where it does not say."""
    # A norm has its order before its axes.
    rest = operation.leaves[2 if operation.name in _NORMS else 1 :]
    return next((int(leaf) for leaf in rest if type(leaf) is int), -1)
