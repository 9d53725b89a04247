"""The kind of a layer (qkv, proj, fc1, ...) from its module path, for every framework alike.

The patterns cover the vision transformers of timm, transformers and torchvision, and `nn.TransformerEncoder`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate

from lampq.core.values.errors import AdapterError
from lampq.core.values.layer import KINDS

_ATTENTION = r"(?:\w*attn\w*|\w*attention\w*|mha|mixer)"

# Tried in order on the lower-case path; the first that is found decides. `(?:^|\.)` starts at a whole name.
_RULES: tuple[tuple[str, str], ...] = (
    # The first projection of pixels, before anything else can claim `proj`.
    (
        "patch_embed",
        r"(?:^|\.)(?:conv_proj|patch_embed\w*(?:\.\w+)*?(?:\.(?:proj|projection))|patch_embed\w*)$",
    ),
    ("patch_embed", r"(?:^|\.)(?:patch_embed\w*|to_patch_embedding|patchify)(?:\.\d+)?$"),
    ("patch_embed", r"(?:^|\.)(?:embeddings\.patch_embeddings?(?:\.projection)?|visual\.conv1)$"),
    ("embedding", r"(?:^|\.)(?:\w*_embeddings|embed_tokens|wte|wpe|tok_embeddings|\w*token_embedding)$"),
    # Fused and separate inputs of attention.
    ("qkv", r"(?:^|\.)(?:qkv\w*|wqkv|to_qkv|in_proj|query_key_value|c_attn|kv|to_kv|kv_proj|qkv_proj)$"),
    ("q", r"(?:^|\.)(?:query|query_proj|q_proj|q_lin|to_q|wq|q|linear_q)(?:_dense)?$"),
    ("k", r"(?:^|\.)(?:key|key_proj|k_proj|k_lin|to_k|wk|k|linear_k)(?:_dense)?$"),
    ("v", r"(?:^|\.)(?:value|value_proj|v_proj|v_lin|to_v|wv|v|linear_v)(?:_dense)?$"),
    ("proj", rf"(?:^|\.){_ATTENTION}(?:\.\w+)*?\.(?:proj|projection|dense|c_proj|o|wo|fc|fc_out|linear)$"),
    ("proj", r"(?:^|\.)(?:out_proj|o_proj|out_lin|to_out(?:\.\d+)?|projection_layer|attn_out|wo)$"),
    # The two halves of an MLP.
    ("fc1", r"(?:^|\.)(?:\w*mlp\w*|ffn\w*|feed_forward|ff)\.(?:net\.)?(?:0|linear_1|layers\.0)(?:\.proj)?$"),
    ("fc2", r"(?:^|\.)(?:\w*mlp\w*|ffn\w*|feed_forward|ff)\.(?:net\.)?(?:[23]|linear_2|layers\.[23])$"),
    (
        "fc1",
        r"(?:^|\.)(?:fc1(?:_\w)?|linear1|lin1|c_fc|up_proj|gate_proj|gate_up_proj|w1|w12|intermediate\.dense)$",
    ),
    ("fc1", r"(?:^|\.)(?:intermediate_dense|weights_in|dense_h_to_4h|wi(?:_\d)?|mlp\.dense1)$"),
    (
        "fc2",
        r"(?:^|\.)(?:fc2|linear2|lin2|down_proj|w2|w3|weights_out|dense_4h_to_h|output_dense|mlp\.dense2)$",
    ),
    ("fc2", r"(?:^|\.)(?:mlp\.c_proj|output\.dense)$"),
    # What gives the classes.
    (
        "head",
        r"(?:^|\.)(?:\w*classifier|\w*_head|head|head_dist|heads)(?:\.(?:\d+|head|fc|l|out_proj|proj|classifier))*$",
    ),
)
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _RULES)
# A convolution takes a name's word for these only: `conv1.0` is no MLP.
_OF_CONVOLUTIONS = frozenset({"patch_embed", "qkv", "q", "k", "v", "proj", "fc1", "fc2", "head"})


def kind_from_name(path: str) -> str | None:
    """The kind that a module path speaks of, or None where it says nothing.

    Args:
        path: Module path without the parameter's name: `blocks.0.attn.qkv`.

    >>> kind_from_name("blocks.0.attn.qkv"), kind_from_name("vit.encoder.layer.3.output.dense")
    ('qkv', 'fc2')
    >>> kind_from_name("blocks.0.downsample") is None
    True
    """
    lowered = path.lower()
    return next((kind for kind, pattern in _COMPILED if pattern.search(lowered)), None)


def infer_kind(path: str, *, convolution: bool = False, position: str | None = None) -> str:
    """The kind of a layer: by its path, else by its place in the graph, else by its operator.

    Args:
        path: Module path.
        convolution: Whether the layer is a convolution.
        position: What its place in the graph says, where an adapter can tell.
    """
    named = kind_from_name(path)
    if named is not None and (not convolution or named in _OF_CONVOLUTIONS):
        return named
    return position or ("conv" if convolution else "linear")


def override_kinds(
    paths: Sequence[str], kinds: Sequence[str], overrides: Mapping[str, str] | None
) -> list[str]:
    """The kinds with the user's word put last and above all.

    Args:
        paths: Layer names.
        kinds: Their kinds so far.
        overrides: Pattern to kind. A pattern is a glob over names (`*`, `?`, `[...]`, `{a,b}`), or a regular
            expression for the whole name after `re:`. Later patterns win over earlier ones.

    Raises:
        AdapterError: A kind is unknown, or a pattern is malformed or matches no name.
    """
    result = list(kinds)
    for pattern, kind in (overrides or {}).items():
        if kind not in KINDS:
            raise AdapterError(f"kind {kind!r} for {pattern!r} is none of {', '.join(KINDS)}")
        compiled = [_compile(text) for text in _alternatives(pattern)]
        hits = [i for i, path in enumerate(paths) if any(c.fullmatch(path) for c in compiled)]
        if not hits:
            raise AdapterError(f"kind pattern {pattern!r} matches no layer; `lampq inspect` lists the names")
        for index in hits:
            result[index] = kind
    return result


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern[3:] if pattern.startswith("re:") else translate(pattern))
    except re.error as err:
        raise AdapterError(f"kind pattern {pattern!r} is malformed: {err}") from err


def _alternatives(pattern: str) -> Iterable[str]:
    """`a.{b,c}` as `a.b` and `a.c`."""
    match = None if pattern.startswith("re:") else re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    for choice in match[1].split(","):
        yield from _alternatives(pattern[: match.start()] + choice + pattern[match.end() :])
