"""Names of weights by module path, from whatever the exporter left behind.

The same model exported by torch's two exporters gives the same names, those of the PyTorch modules:

- an initializer that kept its parameter's name (`head.weight`) says all;
- the newer exporter makes other weights anonymous (`val_12`) but writes the module path and the traced call
  into each node's metadata;
- the older one makes them anonymous too (`onnx::MatMul_245`) but keeps a path in the node's name
  (`/blocks/blocks.0/attn/qkv/MatMul`), which lacks modules that were never called; the bias, where it is
  added next, has the full one.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_CALL = "pkg.torch.onnx.fx_node"
_PARAMETER = re.compile(r"^(?P<path>.*?[^._])?[._]?(?:weight|kernel)$", re.IGNORECASE)
_ANONYMOUS = re.compile(r"^(onnx::|val_\d|_?\w+::|t_?\d|\d+$)")
_BIAS = re.compile(r"^(?P<path>.+?)[._]bias$")
_ATTRIBUTE = re.compile(r"""getattr\((?P<base>.*?), ['"](?P<name>.*?)['"]\)|\[['"]?(?P<index>\w+)['"]?\]""")
_NOISE = re.compile(r"\._modules\b|\.slice\([^)]*\)")
_ROOT = re.compile(r"^(?:L__self__+|L\['self'\]\.?|self\.|_orig_mod\.|module\.)+")


def weight_path(node: ir.Node, weight: ir.Value) -> str:
    """The module path of a weight, judged by its own name and by the node that uses it."""
    name = weight.name or ""
    stem = _parameter_stem(name)
    if stem is not None:
        return stem
    place = node_path(node)
    parameter = _called_parameter(node, place)
    if parameter is not None:
        return parameter
    bias = _bias_path(node)
    if bias is not None and _is_within(place, bias):
        return bias
    if place:
        return place
    return (node.name if not name or _ANONYMOUS.match(name) else name) or name or node.op_type


def node_path(node: ir.Node) -> str:
    """The path of the module that a node was traced in, or an empty text."""
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is not None:
        return _deepest_scope(scopes)
    return _path_from_name(node.name or "")


def complete(paths: Sequence[str], features: Sequence[tuple[int, int]]) -> list[str]:
    """The same paths with `.in_proj` and `.out_proj` added to attention weights that only name their module.

    `nn.MultiheadAttention` owns its packed weight itself, beside a module `out_proj` that it never calls.

    Args:
        paths: Module paths in graph order.
        features: Inputs and outputs of each weight.

    >>> complete(["attn", "attn.out_proj"], [(8, 24), (8, 8)])
    ['attn.in_proj', 'attn.out_proj']
    >>> complete(["attn", "attn"], [(8, 24), (8, 8)])
    ['attn.in_proj', 'attn.out_proj']
    """
    known = set(paths)
    places: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        places.setdefault(path, []).append(index)
    names = list(paths)
    for path, indices in places.items():
        width = features[indices[0]][0]
        if f"{path}.out_proj" in known and len(indices) == 1:
            names[indices[0]] = f"{path}.in_proj"
        elif [features[i] for i in indices] == [(width, 3 * width), (width, width)]:
            names[indices[0]], names[indices[1]] = f"{path}.in_proj", f"{path}.out_proj"
    return names


def distinguish(paths: Sequence[str]) -> list[str]:
    """The same paths made unique: those that occur more than once get `.0`, `.1`, ... in order.

    >>> distinguish(["a", "b", "a"])
    ['a.0', 'b', 'a.1']
    """
    counts = Counter(paths)
    used = {path for path, count in counts.items() if count == 1}
    numbers: Counter[str] = Counter()
    names = []
    for path in paths:
        name = path
        if counts[path] > 1:
            name = f"{path}.{numbers[path]}"
            numbers[path] += 1
            while name in used:
                name = f"{path}.{numbers[path]}"
                numbers[path] += 1
            used.add(name)
        names.append(name)
    return names


def _parameter_stem(name: str) -> str | None:
    """`blocks.0.attn.qkv` of `blocks.0.attn.qkv.weight`, `attn.in_proj` of `attn.in_proj_weight`."""
    if not name or _ANONYMOUS.match(name) or "/" in name:
        return None
    match = _PARAMETER.match(name)
    if match is None:
        return None
    path = match["path"]
    return _ROOT.sub("", path) if path else name


def _deepest_scope(text: str) -> str:
    """The last module of a list such as `['', 'blocks', 'blocks.0.attn', 'linear_3']`; last is the call."""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    if not isinstance(scopes, list) or not all(isinstance(s, str) for s in scopes):
        return ""
    modules = [s for s in scopes[:-1] if s]
    return _plain(modules[-1]) if modules else ""


def _plain(path: str) -> str:
    """A path without traced attribute access: `getattr(L['self'].blocks, '0').attn` is `blocks.0.attn`."""
    previous = None
    while previous != path:
        previous = path
        path = _ROOT.sub("", path)
        path = _ATTRIBUTE.sub(
            lambda m: f"{m['base']}.{m['name']}" if m["base"] else f".{m['index']}", path, count=1
        )
    return _NOISE.sub("", path).strip(".")


def _called_parameter(node: ir.Node, place: str) -> str | None:
    """The parameter that the traced call took as its weight, where it belongs to the module of the call.

    The call reads `linear(args = (%x, %p_blocks_0_attn_qkv_weight, ...))`: a path with underscores for dots.
    """
    call = node.metadata_props.get(_CALL)
    if call is None:
        return None
    prefix = place.replace(".", "_")
    for argument in re.findall(r"%p_(\w+)", call):
        if not argument.endswith("weight"):
            continue
        if not prefix:
            own = argument
        elif argument.startswith(prefix + "_"):
            own = argument[len(prefix) + 1 :]
        else:
            continue
        stem = _parameter_stem(own)
        if own == "weight" or stem is None:
            return place or None
        return f"{place}.{stem}" if place else stem
    return None


def _path_from_name(name: str) -> str:
    """`blocks.0.attn.qkv` of `/blocks/blocks.0/attn/qkv/MatMul`: a called container repeats its own name."""
    parts = [p for p in name.split("/") if p]
    if len(parts) < 2:
        return ""
    path: list[str] = []
    for part in parts[:-1]:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _bias_path(node: ir.Node) -> str | None:
    """The path of the bias that the node adds itself or that the next node adds."""
    candidates = (
        list(node.inputs[2:3])
        if node.op_type in ("Gemm", "Conv", "ConvTranspose", "FusedGemm", "FusedConv")
        else []
    )
    for output in node.outputs[:1]:
        for user, _ in output.uses():
            if user.op_type == "Add":
                candidates += [v for v in user.inputs if v is not output]
    for value in candidates:
        match = _BIAS.match(value.name or "") if value is not None and value.const_value is not None else None
        if match is not None and not _ANONYMOUS.match(match.string):
            return match["path"]
    return None


def _is_within(place: str, path: str) -> bool:
    """Whether a module path holds the parts of a place in their order, its end included.

    Equal biases are stored once under one name, so a bias may belong to another module: its path must agree.
    """
    if not place:
        return False
    wanted, parts = place.split("."), path.split(".")
    at = 0
    for part in wanted:
        if part not in parts[at:]:
            return False
        at = parts.index(part, at) + 1
    # The module itself, or a parameter of its own such as in_proj.
    return at >= len(parts) - 1
