"""ONNX operators over images in PyTorch: other sizes, averages over windows, normalization per image."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.onnx.torch_call import Call, Function


def _resize(call: Call) -> torch.Tensor:
    """Resize where it is an interpolation over the last axes: nearest, linear or cubic."""
    x = call.tensor(0)
    sizes = _sizes(call, x)
    if sizes == list(x.shape):
        return x
    if sizes[:2] != list(x.shape[:2]) or call.get("antialias", 0) or call.get("exclude_outside", 0):
        raise UnsupportedOperatorError("Resize of other axes than the last, or antialiased")
    mode, place = call.get("mode", "nearest"), call.get("coordinate_transformation_mode", "half_pixel")
    kinds = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
    if mode == "nearest":
        return _nearest(call, x, sizes, place)
    kind = kinds.get(mode, {}).get(x.dim())
    if kind is None or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise UnsupportedOperatorError(f"Resize {mode} with {place}")
    return functional.interpolate(x, sizes[2:], mode=kind, align_corners=place == "align_corners")


def _sizes(call: Call, x: torch.Tensor) -> list[int]:
    offset = 1 if call.name == "Upsample" else 2
    scales, sizes = call.optional(offset), call.numbers(3, "sizes") if offset == 2 else None
    if sizes:
        return sizes
    factors = call.get("scales") if scales is None else scales.tolist()
    return [math.floor(side * scale + 1e-6) for side, scale in zip(x.shape, factors or [], strict=True)]


def _nearest(call: Call, x: torch.Tensor, sizes: list[int], place: str) -> torch.Tensor:
    rounding = call.get("nearest_mode", "round_prefer_floor")
    for axis in range(2, x.dim()):
        steps = torch.arange(sizes[axis], dtype=torch.float64)
        factor = x.shape[axis] / sizes[axis]
        if place == "asymmetric" or call.name == "Upsample":
            steps = steps * factor
        elif place in ("half_pixel", "pytorch_half_pixel"):
            steps = (steps + 0.5) * factor - 0.5
        else:
            raise UnsupportedOperatorError(f"Resize nearest with {place}")
        if call.name == "Upsample" or rounding == "floor":
            steps = steps.floor()
        elif rounding == "ceil":
            steps = steps.ceil()
        else:
            steps = (steps - 0.5).ceil() if rounding == "round_prefer_floor" else (steps + 0.5).floor()
        x = x.index_select(axis, steps.long().clamp(0, x.shape[axis] - 1))
    return x


def _average_pool(call: Call) -> torch.Tensor:
    x, kernel = call.tensor(0), call.get("kernel_shape")
    axes = len(kernel)
    pads = call.get("pads", [0] * (2 * axes))
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}.get(axes)
    odd = call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or pads[:axes] != pads[axes:]
    if pool is None or odd or any(d != 1 for d in call.get("dilations", [1] * axes)):
        raise UnsupportedOperatorError("AveragePool with this padding")
    return pool(
        x,
        kernel,
        call.get("strides", [1] * axes),
        pads[:axes],
        ceil_mode=bool(call.get("ceil_mode", 0)),
        count_include_pad=bool(call.get("count_include_pad", 0)),
    )


def _depth_to_space(call: Call) -> torch.Tensor:
    x, side = call.tensor(0), call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, side)
    samples, channels, height, width = x.shape
    x = x.reshape(samples, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(samples, channels // side**2, height * side, width * side)


def _space_to_depth(call: Call) -> torch.Tensor:
    x, side = call.tensor(0), call.get("blocksize")
    samples, channels, height, width = x.shape
    x = x.reshape(samples, channels, height // side, side, width // side, side).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(samples, channels * side**2, height // side, width // side)


def _instance_normalization(call: Call) -> torch.Tensor:
    x = call.tensor(0)
    return functional.instance_norm(
        x, weight=call.tensor(1), bias=call.tensor(2), eps=call.get("epsilon", 1e-5)
    )


def _group_normalization(call: Call) -> torch.Tensor:
    x, groups = call.tensor(0), call.get("num_groups")
    if len(call.tensor(1)) != x.shape[1]:
        raise UnsupportedOperatorError("GroupNormalization with a scale per group")
    return functional.group_norm(x, groups, call.tensor(1), call.tensor(2), call.get("epsilon", 1e-5))


def _lp_normalization(call: Call) -> torch.Tensor:
    return functional.normalize(call.tensor(0), p=call.get("p", 2), dim=call.get("axis", -1), eps=0.0)


OPERATORS: dict[str, Function] = {
    "Resize": _resize,
    "Upsample": _resize,
    "AveragePool": _average_pool,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _group_normalization,
    "LpNormalization": _lp_normalization,
}
