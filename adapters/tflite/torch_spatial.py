"""TFLite operators over the rows and columns of images in PyTorch. Images have their channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.tflite.torch_call import Call, activated


def convolution(call: Call) -> torch.Tensor:
    """CONV_2D and DEPTHWISE_CONV_2D."""
    weight = call.tensor(1)
    depthwise = call.name == "DEPTHWISE_CONV_2D"
    kernel = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
    x = call.tensor(0).permute(0, 3, 1, 2)
    groups = x.shape[1] // kernel.shape[1]
    stride = (call.option("stride_h"), call.option("stride_w"))
    dilation = (call.option("dilation_h_factor"), call.option("dilation_w_factor"))
    x = functional.pad(x, _padding(call, x.shape[2:], kernel.shape[2:], stride, dilation))
    bias = call.inputs[2] if len(call.inputs) > 2 else None
    result = functional.conv2d(x, kernel, bias, stride=stride, dilation=dilation, groups=groups)
    return activated(result.permute(0, 2, 3, 1), call)


def _padding(
    call: Call,
    sides: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> list[int]:
    """Left, right, top, bottom; SAME puts the odd one behind."""
    if call.option("padding") != 0:
        return [0, 0, 0, 0]
    padding: list[int] = []
    for side, width, step, skip in zip(sides, kernel, stride, dilation, strict=True):
        total = max(0, (math.ceil(side / step) - 1) * step + (width - 1) * skip + 1 - side)
        padding = [total // 2, total - total // 2, *padding]
    return padding


def pool(call: Call) -> torch.Tensor:
    """MAX_POOL_2D and AVERAGE_POOL_2D."""
    x = call.tensor(0).permute(0, 3, 1, 2)
    kernel = (call.option("filter_height"), call.option("filter_width"))
    stride = (call.option("stride_h"), call.option("stride_w"))
    padding = _padding(call, x.shape[2:], kernel, stride)
    if call.name == "MAX_POOL_2D":
        result = functional.max_pool2d(functional.pad(x, padding, value=-math.inf), kernel, stride)
    else:
        # The mean is over what lies inside the image.
        inside = functional.pad(torch.ones_like(x[:1, :1]), padding)
        total = functional.avg_pool2d(functional.pad(x, padding), kernel, stride)
        result = total / functional.avg_pool2d(inside, kernel, stride)
    return activated(result.permute(0, 2, 3, 1), call)


def resize(call: Call) -> torch.Tensor:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR."""
    x, size = call.tensor(0).permute(0, 3, 1, 2), call.numbers(1)
    aligned, centred = bool(call.option("align_corners")), bool(call.option("half_pixel_centers"))
    if call.name == "RESIZE_BILINEAR" and aligned != centred:
        result = functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned)
    elif call.name == "RESIZE_NEAREST_NEIGHBOR" and not aligned:
        result = functional.interpolate(x, size=size, mode="nearest-exact" if centred else "nearest")
    else:
        raise UnsupportedOperatorError(f"{call.name} with these corners")
    return result.permute(0, 2, 3, 1)


def transposed_convolution(call: Call) -> torch.Tensor:
    """TRANSPOSE_CONV: the gradient of a convolution with respect to its input."""
    sizes, kernel = call.numbers(0)[1:3], call.tensor(1).permute(3, 0, 1, 2)
    x = call.tensor(2).permute(0, 3, 1, 2)
    stride = (call.option("stride_h"), call.option("stride_w"))
    bias = call.inputs[3] if len(call.inputs) > 3 else None
    whole = functional.conv_transpose2d(x, kernel, bias, stride=stride)
    left, _, top, _ = _padding(call, sizes, kernel.shape[2:], stride)
    missing = [
        max(0, n + start - have) for n, start, have in zip(sizes, (top, left), whole.shape[2:], strict=True)
    ]
    if any(missing):
        if bias is not None:
            raise UnsupportedOperatorError("TRANSPOSE_CONV with a bias beyond its input")
        whole = functional.pad(whole, [0, missing[1], 0, missing[0]])
    result = whole[:, :, top : top + sizes[0], left : left + sizes[1]]
    return activated(result.permute(0, 2, 3, 1), call)


def mirror_pad(call: Call) -> torch.Tensor:
    """MIRROR_PAD, with the edge itself repeated or not."""
    x, pairs = call.tensor(0), call.numbers(1)
    with_edge = call.option("mode") == 1
    for axis, (before, after) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        length, first = x.shape[axis], 0 if with_edge else 1
        front = [first + i for i in reversed(range(before))]
        back = [length - 1 - first - i for i in range(after)]
        x = x.index_select(axis, torch.tensor([*front, *range(length), *back]))
    return x


def depth_to_space(call: Call) -> torch.Tensor:
    """DEPTH_TO_SPACE: channels laid out as blocks of pixels."""
    x, size = call.tensor(0), call.option("block_size")
    samples, height, width, depth = x.shape
    blocks = x.reshape(samples, height, width, size, size, depth // size**2)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(samples, height * size, width * size, depth // size**2)


def space_to_depth(call: Call) -> torch.Tensor:
    """SPACE_TO_DEPTH, the inverse."""
    x, size = call.tensor(0), call.option("block_size")
    samples, height, width, depth = x.shape
    blocks = x.reshape(samples, height // size, size, width // size, size, depth)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(samples, height // size, width // size, depth * size**2)
