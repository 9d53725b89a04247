"""Inputs that a module accepts: those of the data where there are any, else found by trying."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lampq.adapters.torch import hugging_face_inputs
from lampq.adapters.torch.chunks import samples_of
from lampq.adapters.torch.signature import Signature
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

Inputs = dict[str, torch.Tensor]
"""Inputs by name, samples first."""
Run = Callable[[Inputs], object]

_SIDES = (224, 32, 28, 64, 384, 256, 96, 128, 160, 192, 240, 288, 299, 320, 336, 448, 512)
TOKENS = 16
_IDS, _MASKS = ("ids", "tokens"), ("mask", "token_type_ids")
# What PyTorch says of a module that makes tensors without naming a device, and of one that reads others' tensors.
_DEVICES = "on the same device"
_ON_THE_CPU = "; it makes tensors on the cpu itself: take --device cpu (device='cpu')"


def find_example(
    module: torch.nn.Module, signature: Signature, run: Run, shapes: Mapping[str, tuple[int, ...]]
) -> Inputs:
    """Two made-up samples that the module accepts.

    Args:
        module: The module.
        signature: What it takes.
        run: Its forward pass.
        shapes: Shapes of single samples by name of the input, where they are known; "" is the main one.

    Raises:
        AdapterError: No try succeeded; says what the module objected to.
    """
    shapes = {name or signature.main: shape for name, shape in shapes.items()}
    unknown = [name for name in shapes if name not in signature.names]
    if unknown and signature.names:
        raise AdapterError(f"the model has no input {unknown[0]}; it takes {', '.join(signature.names)}")
    lacking = [name for name in signature.required if name not in shapes]
    if lacking and len(signature.required) > 1:
        raise AdapterError(
            f"the model takes {', '.join(signature.required)}; their shapes cannot be guessed: measure with data, "
            f"or pass input_shape (--input-shape {lacking[0]}=SHAPE)"
        )
    objection = "it has neither a convolution nor an embedding to tell"
    for inputs in _tries(module, signature, shapes):
        objection = objection_of(run, inputs)
        if not objection:
            return inputs
        if _DEVICES in objection:
            break
    if shapes:
        text = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
        raise AdapterError(f"the model does not take samples of shape {text}: {objection}")
    raise AdapterError(
        f"cannot tell the shape of the model's input ({objection}); measure with data, "
        f"or pass input_shape, for example (3, 224, 224) (--input-shape 3x224x224)"
    )


def objection_of(run: Run, inputs: Inputs) -> str:
    """Why a module does not take inputs, or empty."""
    try:
        with torch.no_grad():
            run(inputs)
    except AdapterError:
        raise
    # Modules raise whatever a wrong shape makes them stumble over.
    except Exception as err:
        objection = reason(err, last=True) or type(err).__name__
        return objection + _ON_THE_CPU if _DEVICES in objection else objection
    return ""


def example_of(
    arrays: Mapping[str, np.ndarray], module: torch.nn.Module, run: Run, count: int
) -> tuple[Inputs, str]:
    """The first samples of the data in types that the module takes, and else its objection.

    Integers stay what they are where the module takes them, and become floating point elsewhere (images of bytes).

    Args:
        arrays: Samples by name.
        module: The module.
        run: Its forward pass.
        count: Samples wanted; the last is repeated where there are fewer.
    """
    numbers = np.minimum(np.arange(count), len(next(iter(arrays.values()))) - 1)
    samples = {name: array[numbers] for name, array in arrays.items()}
    whole = [name for name, array in samples.items() if array.dtype.kind in "iub"]
    objection = ""
    for number in range(len(whole) + 1):
        for floats in itertools.combinations(whole, number):
            inputs = {
                name: to_tensor(array, module, floating=name in floats) for name, array in samples.items()
            }
            objection = objection_of(run, inputs)
            if not objection:
                return inputs, ""
    return inputs, objection


def to_tensor(array: np.ndarray, module: torch.nn.Module, *, floating: bool) -> torch.Tensor:
    """An array on the module's device: integers as int64, numbers in the type of its weights.

    Raises:
        AdapterError: It holds no numbers.
    """
    array = np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise AdapterError(f"inputs of type {array.dtype} are no numbers")
    like = _like(module)
    if array.dtype.kind == "f" or floating:
        return torch.from_numpy(array.astype(np.float32, copy=False)).to(like)
    wide = array if array.dtype.kind == "b" else array.astype(np.int64, copy=False)
    return torch.from_numpy(wide).to(like.device)


def vary(example: Mapping[str, torch.Tensor], count: int, seed: int) -> Inputs:
    """Random samples like those of an example: noise of its mean and spread, whole numbers within its range.

    Masks, and other inputs of zeros and ones, are the example's own.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = samples_of(example)
    inputs = {}
    for name, tensor in example.items():
        shape = (count, *tensor.shape[1:])
        low, high = (float(v) for v in torch.aminmax(tensor.float())) if tensor.numel() else (0.0, 0.0)
        if not tensor.is_floating_point() and low >= 0 and high <= 1:
            inputs[name] = tensor[torch.arange(count) % samples]
        elif tensor.is_floating_point():
            values = tensor.float()
            noise = torch.randn(shape, generator=generator).to(values.device)
            spread = float(values.std()) if values.numel() > 1 else 1.0
            inputs[name] = (noise * (spread or 1.0) + float(values.mean())).to(tensor.dtype)
        else:
            drawn = torch.randint(int(low), int(high) + 1, shape, generator=generator)
            inputs[name] = drawn.to(tensor)
    return inputs


def longer(example: Mapping[str, torch.Tensor]) -> Iterator[Inputs]:
    """The samples with more pixels (three axes) and tokens (one axis), then with more of either alone."""
    tried: set[tuple[torch.Size, ...]] = {tuple(tensor.shape for tensor in example.values())}
    for kinds in ((1, 3), (1,), (3,)):
        inputs = {
            name: _grown(tensor) if tensor.dim() - 1 in kinds else tensor for name, tensor in example.items()
        }
        shapes = tuple(tensor.shape for tensor in inputs.values())
        if shapes not in tried:
            tried.add(shapes)
            yield inputs


def _grown(tensor: torch.Tensor) -> torch.Tensor:
    for axis, more in ((2, 32), (3, 32)) if tensor.dim() == 4 else ((1, 8),):
        first = tensor.narrow(axis, 0, 1)
        tensor = torch.cat([tensor, first.expand(_repeated(first, axis, more))], axis)
    return tensor


def vocabulary_of(module: torch.nn.Module) -> int | None:
    """Rows of the first embedding table of a model without convolutions: it reads tokens. Else None."""
    members = list(module.modules())
    if any(isinstance(m, torch.nn.modules.conv._ConvNd) for m in members):
        return None
    return next((m.num_embeddings for m in members if isinstance(m, torch.nn.Embedding)), None)


def _repeated(tensor: torch.Tensor, axis: int, count: int) -> tuple[int, ...]:
    return tuple(count if i == axis else n for i, n in enumerate(tensor.shape))


def _like(module: torch.nn.Module) -> torch.Tensor:
    return next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))


def _tries(
    module: torch.nn.Module, signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Inputs]:
    if hugging_face_inputs.describes(module):
        for candidate in hugging_face_inputs.shapes(module, signature, shapes):
            yield _made_up(module, candidate, whole=_named_whole(candidate))
        return
    vocabulary = vocabulary_of(module)
    if shapes:
        short = {name for name, shape in shapes.items() if len(shape) == 1 and vocabulary is not None}
        for whole in dict.fromkeys(
            (frozenset(short) | _named_whole(shapes), _named_whole(shapes), frozenset())
        ):
            yield _made_up(module, shapes, whole=whole)
        return
    for shape in _usual(module, vocabulary):
        whole = frozenset({signature.main} if vocabulary is not None else ())
        yield _made_up(module, {signature.main: shape}, whole=whole)


def _named_whole(names: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name in names if name.endswith((*_IDS, *_MASKS)))


def _made_up(
    module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], *, whole: frozenset[str]
) -> Inputs:
    """Noise; where whole numbers are wanted tokens of the vocabulary, and ones for masks."""
    generator = torch.Generator().manual_seed(0)
    like = _like(module)
    rows = next((m.num_embeddings for m in module.modules() if isinstance(m, torch.nn.Embedding)), 2)
    rows = hugging_face_inputs.vocabulary(module) or rows
    inputs: Inputs = {}
    for name, shape in shapes.items():
        size = (2, *shape)
        if name not in whole:
            inputs[name] = torch.randn(size, generator=generator).to(like)
        elif name.endswith(_MASKS):
            inputs[name] = torch.full(size, int("mask" in name), dtype=torch.int64, device=like.device)
        else:
            inputs[name] = torch.randint(min(5, rows - 1), rows, size, generator=generator).to(like.device)
    return inputs


def _usual(module: torch.nn.Module, vocabulary: int | None) -> Iterator[tuple[int, ...]]:
    if vocabulary is not None:
        yield (TOKENS,)
        return
    first = next((m for m in module.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)), None)
    if isinstance(first, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
        stated = [side for m in module.modules() for side in _stated_sides(m)]
        for side in dict.fromkeys((*stated, *_SIDES)):
            yield (first.in_channels, *(side if isinstance(side, tuple) else (side, side)))
    elif isinstance(first, torch.nn.Conv1d):
        for length in (256, 1024, 16000, 64):
            yield (first.in_channels, length)
    elif isinstance(first, torch.nn.Conv3d):
        for side in (32, 16, 64):
            yield (first.in_channels, side, side, side)
    elif first is None:
        yield from _unfolded(module)


def _unfolded(module: torch.nn.Module) -> Iterator[tuple[int, ...]]:
    for member in module.modules():
        if isinstance(member, torch.nn.RNNBase):
            yield (TOKENS, member.input_size)
            return
        if isinstance(member, torch.nn.Linear):
            yield (member.in_features,)
            yield (TOKENS, member.in_features)
            for side, channels in itertools.product(_SIDES, (3, 1)):
                yield (channels, side, side)
            return


def _stated_sides(module: torch.nn.Module) -> Iterator[Any]:
    for name in ("img_size", "image_size", "input_size"):
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            yield value
        elif isinstance(value, (tuple, list)) and len(value) >= 2 and all(isinstance(v, int) for v in value):
            yield tuple(value[-2:])
