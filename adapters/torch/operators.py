"""The operators that an exported program may call: those that compute from tensors, and nothing else.

Torch has some 3,000. Among them are operators that open files (`from_file`), that run compiled code, that take
memory as it is (`_nested_view_from_buffer`, `_sparse_coo_tensor_unsafe`) or that are kept for torch itself; so these
are named, and everything else is refused.
"""

from __future__ import annotations

import re

import torch

_ATEN = frozenset(
    """
    __and__ __or__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_scalar _assert_tensor_metadata
    _conj _euclidean_dist _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training
    _softmax _to_copy _unsafe_view _weight_norm
    abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d add addbmm addcdiv addcmul addmm addmv alias all alpha_dropout amax amin aminmax any
    arange argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d
    baddbmm batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_tensors broadcast_to bucketize
    cat cdist ceil celu channel_shuffle chunk clamp clamp_max clamp_min clip clone col2im column_stack concat
    constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
    copy cos cosh cosine_similarity cross cummax cummin cumprod cumsum
    deg2rad detach detach_ diag diag_embed diagonal diff div divide dot dropout dstack
    einsum elu embedding empty empty_like empty_permuted empty_strided eq erf erfc erfinv exp exp2 expand expand_as
    expm1 eye
    feature_dropout fill flatten flip fliplr flipud floor floor_divide fmax fmin fmod frac full full_like
    gather ge gelu glu greater greater_equal grid_sampler grid_sampler_2d group_norm gru gt
    hamming_window hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hstack
    im2col index index_add index_copy index_fill index_put index_select inner instance_norm isfinite isin isinf
    isnan item
    kron kthvalue
    layer_norm leaky_relu lerp less less_equal lift lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm
    linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not logical_or
    logical_xor logit logsumexp lstm lt
    masked_fill masked_scatter masked_select matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    maximum mean median meshgrid min minimum mish mm mode movedim moveaxis mT mH mul multiply mv
    nan_to_num narrow native_batch_norm native_group_norm native_layer_norm ne neg negative new_empty
    new_empty_strided new_full new_ones new_zeros nonzero norm not_equal numpy_T
    one_hot ones ones_like outer
    pad permute pixel_shuffle pixel_unshuffle polar pow prelu prod
    quantile
    rad2deg ravel real reciprocal reflection_pad1d reflection_pad2d relu relu6 remainder repeat repeat_interleave
    replication_pad1d replication_pad2d reshape reshape_as rms_norm rnn_relu rnn_tanh roll rot90 round rsqrt rsub
    scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select
    select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice slice_scatter softmax softplus softshrink
    sort split split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes swapdims
    sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_stride
    t take_along_dim tan tanh tensor_split threshold tile to topk trace transpose tril triu true_divide trunc
    type_as
    unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d
    var var_mean vdot view view_as view_as_complex view_as_real vstack
    where
    xlogy
    zero zeros zeros_like
    """.split()  # noqa: SIM905
)
_QUANTIZED = frozenset(
    {f"{way}_per_{unit}" for way in ("quantize", "dequantize") for unit in ("tensor", "channel")}
)
# Blocks of a program that run under no_grad or autocast.
_BLOCKS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})
_OF_NUMBERS = re.compile(
    r"_operator\.(?:getitem|add|sub|mul|neg|pos|floordiv|truediv|mod|eq|ne|lt|le|gt|ge|and_|or_|not_|index)"
    r"|math\.(?:ceil|floor|trunc|sqrt|log2)"
    r"|torch\.(?:sym_int|sym_float|sym_max|sym_min|sym_not|sym_ite|sym_sum|_sym_sqrt)"
)
_OF_TENSORS = re.compile(r"torch\.ops\.(aten|quantized_decomposed)\.(\w+)\.([A-Za-z]\w*)")
_BLOCK = re.compile(r"torch\.ops\.higher_order\.(\w+)")


def is_operator(target: str) -> bool:
    """Whether a program's call is one of those.

    >>> is_operator("torch.ops.aten.linear.default"), is_operator("torch.ops.aten.from_file.default")
    (True, False)
    """
    if _OF_NUMBERS.fullmatch(target):
        return True
    if block := _BLOCK.fullmatch(target):
        return block[1] in _BLOCKS
    parts = _OF_TENSORS.fullmatch(target)
    return parts is not None and _is_overload(*parts.groups())


def _is_overload(space: str, name: str, overload: str) -> bool:
    if space == "aten":
        # `add_` is `add` in place.
        allowed = name in _ATEN or (name.removesuffix("_") in _ATEN and not name.endswith("__"))
    else:
        allowed = name in _QUANTIZED
    # Beside overloads, the object of an operator has attributes that are no operators.
    packet = getattr(getattr(torch.ops, space), name, None) if allowed else None
    return isinstance(getattr(packet, overload, None), torch._ops.OpOverload)
