"""Module paths from the names that converters give to tensors.

litert-torch writes the stack of modules a tensor comes from, `pkg.ViT/pkg.Block_0/torch.nn...Linear_fc1;3`,
several of them joined by `;;` where operations were merged; Keras and TensorFlow write
`model/block/dense/MatMul`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What makes a module one that owns a weight rather than one that was merged into it.
_OWNERS = re.compile(r"linear|conv|dense|attention|embedding|projection|^fc|lora", re.IGNORECASE)
_GENERIC = re.compile(
    r"^(?:arith\.constant|tfl\.pseudo_q?const|tfl\.\w+|const(?:ant)?|cst|transpose|reshape|dequantize)\W*\d*$",
    re.IGNORECASE,
)
# What makes names unique, and what quantizers append.
_NUMBER = re.compile(r"(?:;\d*)?(?:_dequant\w*|_quantized)?$")
# What TensorFlow appends to the name of a layer.
_TAILS = frozenset(
    (
        *("MatMul", "BatchMatMul", "BatchMatMulV2", "Tensordot", "Einsum", "einsum", "Conv2D", "Convolution"),
        *("depthwise", "DepthwiseConv2dNative", "depthwise_weights", "separable_conv2d", "BiasAdd", "kernel"),
        *(
            "weight",
            "weights",
            "ReadVariableOp",
            "resource",
            "transpose",
            "transpose_a",
            "Reshape",
            "dequantize",
        ),
        *("StatefulPartitionedCall", "PartitionedCall", "Relu", "Relu6", "Gelu"),
    )
)


def module_path(candidates: Iterable[str]) -> str | None:
    """The first module path that a list of tensor names gives away.

    Args:
        candidates: Names of the weight and of what is computed from it, best first.

    >>> module_path(["m.ViT/m.Block_0/m.Mlp_mlp/torch.nn.modules.linear.Linear_fc1;2"])
    '0.mlp.fc1'
    >>> module_path(["arith.constant7", "model/block_1/dense/MatMul;model/block_1/dense/BiasAdd"])
    'model.block_1.dense'
    """
    for name in candidates:
        path = _path(name)
        if path:
            return path
    return None


def _path(name: str) -> str | None:
    places = [place for place in re.split(r";;|;(?=[A-Za-z_])", name) if place.strip("; ")]
    places = [_NUMBER.sub("", place) for place in places]
    places = [place for place in places if not _GENERIC.match(place)]
    if not places:
        return None
    stacks = [place.split("/") for place in places]
    if _is_module_stack(stacks[0]):
        owner = next(
            (stack for stack in stacks if _OWNERS.search(_class_name(stack[-1]))), max(stacks, key=len)
        )
        return ".".join(_attribute(part) for part in owner[1:]) or None
    parts = [part for part in stacks[0] if part]
    while parts and re.sub(r"(?:_\d+|:\d+)$", "", parts[-1]) in _TAILS:
        parts.pop()
    return ".".join(parts) or None


def _is_module_stack(parts: list[str]) -> bool:
    """Whether the first part is a Python class (`pkg.mod.ViT`) without an attribute behind it."""
    return re.fullmatch(r"(?:[\w<>]+\.)+[A-Za-z]\w*", parts[0]) is not None


def _class_name(part: str) -> str:
    return part.rpartition(".")[2].partition("_")[0]


def _attribute(part: str) -> str:
    """`torch.nn.modules.linear.Linear_fc1` -> `fc1`."""
    return part.rpartition(".")[2].partition("_")[2] or part.rpartition(".")[2]
