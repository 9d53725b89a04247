"""ONNX operators in PyTorch that pick, place and order entries by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.onnx.torch_call import Call, Function


def _from_front(index: torch.Tensor, length: int) -> torch.Tensor:
    index = index.long()
    return torch.where(index < 0, index + length, index)


def _gather_elements(call: Call) -> torch.Tensor:
    x, axis = call.tensor(0), call.get("axis", 0)
    return x.gather(axis, _from_front(call.tensor(1), x.shape[axis]))


def _gather_nd(call: Call) -> torch.Tensor:
    x, index = call.tensor(0), call.tensor(1).long()
    if call.get("batch_dims", 0):
        raise UnsupportedOperatorError("GatherND over batches")
    return x[tuple(_from_front(part, side) for part, side in zip(index.unbind(-1), x.shape, strict=False))]


def _scatter_nd(call: Call) -> torch.Tensor:
    x, index, updates = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    if call.get("reduction", "none") != "none":
        raise UnsupportedOperatorError("ScatterND that adds up")
    places = tuple(_from_front(part, side) for part, side in zip(index.unbind(-1), x.shape, strict=False))
    return x.index_put(places, updates.to(x.dtype))


def _scatter_elements(call: Call) -> torch.Tensor:
    x, axis = call.tensor(0), call.get("axis", 0)
    if call.get("reduction", "none") != "none":
        raise UnsupportedOperatorError("ScatterElements that adds up")
    return x.scatter(axis, _from_front(call.tensor(1), x.shape[axis]), call.tensor(2).to(x.dtype))


def _extreme(largest: bool) -> Function:
    def run(call: Call) -> torch.Tensor:
        x, axis, keep = call.tensor(0), call.get("axis", 0), bool(call.get("keepdims", 1))
        if call.get("select_last_index", 0):
            raise UnsupportedOperatorError(f"{call.name} that takes the last of equals")
        return (torch.argmax if largest else torch.argmin)(x, dim=axis, keepdim=keep)

    return run


def _top_k(call: Call) -> Sequence[torch.Tensor]:
    count = (call.numbers(1, "k") or [1])[0] if call.optional(1) is not None else call.get("k")
    return tuple(
        call.tensor(0).topk(
            count,
            dim=call.get("axis", -1),
            largest=bool(call.get("largest", 1)),
            sorted=bool(call.get("sorted", 1)),
        )
    )


def _cumulative_sum(call: Call) -> torch.Tensor:
    x, axis = call.tensor(0), int(call.tensor(1))
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise UnsupportedOperatorError("CumSum from the other end")
    return x.cumsum(axis).to(x.dtype)


def _triangle(call: Call) -> torch.Tensor:
    shift = call.optional(1)
    function = torch.triu if call.get("upper", 1) else torch.tril
    return function(call.tensor(0), 0 if shift is None else int(shift))


def _one_hot(call: Call) -> torch.Tensor:
    index, depth = call.tensor(0).long(), int(call.tensor(1).reshape(-1)[0])
    if call.get("axis", -1) != -1:
        raise UnsupportedOperatorError("OneHot along an inner axis")
    off, on = call.tensor(2).unbind()
    return torch.where(torch.nn.functional.one_hot(_from_front(index, depth), depth).bool(), on, off)


def _non_zero(call: Call) -> torch.Tensor:
    return call.tensor(0).nonzero().T.contiguous()


def _eye_like(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    if call.get("k", 0):
        raise UnsupportedOperatorError("EyeLike off the diagonal")
    return torch.eye(*x.shape, dtype=x.dtype) if math.prod(x.shape) else x


OPERATORS: dict[str, Function] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "ArgMax": _extreme(True),
    "ArgMin": _extreme(False),
    "TopK": _top_k,
    "CumSum": _cumulative_sum,
    "Trilu": _triangle,
    "OneHot": _one_hot,
    "NonZero": _non_zero,
    "EyeLike": _eye_like,
}
