"""What a module eats: from its configuration where it has one, else found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

_SIDES = (224, 32, 28, 64, 384, 256, 96, 128, 160, 192, 240, 288, 299, 320, 336, 448, 512)
_TOKENS = 16


def find_example(
    module: torch.nn.Module, run: Callable[[torch.Tensor], object], shape: tuple[int, ...] | None
) -> torch.Tensor:
    """A batch of two made-up samples that the module accepts.

    Args:
        module: The module.
        run: Its forward pass.
        shape: Shape of one sample, where the user or a configuration says it; None tries usual ones.

    Raises:
        AdapterError: No try succeeded; says what the module objected to.
    """
    vocabulary = vocabulary_of(module)
    shapes = [shape] if shape is not None else list(_candidates(module, vocabulary))
    objection = "it has neither a convolution nor an embedding to tell"
    for candidate in shapes:
        batch = make_up((2, *candidate), vocabulary if len(candidate) == 1 and vocabulary else None, module)
        try:
            with torch.no_grad():
                run(batch)
        except AdapterError:
            raise
        # Modules raise whatever a wrong shape makes them stumble over.
        except Exception as err:
            objection = reason(err, last=True)
            continue
        return batch
    if shape is not None:
        raise AdapterError(
            f"the model does not take samples of shape {'x'.join(map(str, shape))}: {objection}"
        )
    raise AdapterError(
        f"cannot tell the shape of the model's input ({objection}); "
        f"pass input_shape, for example (3, 224, 224)"
    )


def make_up(
    shape: tuple[int, ...], vocabulary: int | None, module: torch.nn.Module, seed: int = 0
) -> torch.Tensor:
    """Random samples: noise, or token numbers below `vocabulary`."""
    generator = torch.Generator().manual_seed(seed)
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    if vocabulary is not None:
        return torch.randint(min(5, vocabulary - 1), vocabulary, shape, generator=generator).to(like.device)
    return torch.randn(shape, generator=generator).to(like)


def vocabulary_of(module: torch.nn.Module) -> int | None:
    """Rows of the first embedding table of a model without convolutions: it reads tokens. Else None."""
    members = list(module.modules())
    if any(isinstance(m, torch.nn.modules.conv._ConvNd) for m in members):
        return None
    return next((m.num_embeddings for m in members if isinstance(m, torch.nn.Embedding)), None)


def _candidates(module: torch.nn.Module, vocabulary: int | None) -> Iterator[tuple[int, ...]]:
    if vocabulary is not None:
        yield (_TOKENS,)
        return
    first = next((m for m in module.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)), None)
    if isinstance(first, torch.nn.Conv2d):
        stated = [side for m in module.modules() for side in _stated_sides(m)]
        for side in dict.fromkeys((*stated, *_SIDES)):
            yield (first.in_channels, *(side if isinstance(side, tuple) else (side, side)))
    elif first is None:
        linear = next((m for m in module.modules() if isinstance(m, torch.nn.Linear)), None)
        if linear is not None:
            yield (linear.in_features,)
            yield (_TOKENS, linear.in_features)
            for side in _SIDES:
                for channels in (3, 1):
                    yield (channels, side, side)


def _stated_sides(module: torch.nn.Module) -> Iterator[Any]:
    for name in ("img_size", "image_size", "input_size"):
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            yield value
        elif isinstance(value, (tuple, list)) and len(value) >= 2 and all(isinstance(v, int) for v in value):
            yield tuple(value[-2:])
