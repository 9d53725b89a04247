"""Shapes of inputs that configurations of transformers tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lampq.adapters.torch.signature import IDS, Signature

# Models that do not say their images' size take any; this much is left after five halvings, and some to spare.
ANY_SIZE = 64
_TOKENS, _WAVE = 16, 16000
# Inputs that some models need beside their main one.
_PARTNERS = ("pixel_values", IDS, "decoder_input_ids", "input_values", "input_features")


def describes(module: torch.nn.Module) -> bool:
    """Whether a module is a model of transformers with a configuration."""
    return hasattr(module, "config") and bool(getattr(module, "main_input_name", ""))


def shapes(
    module: torch.nn.Module, signature: Signature, known: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of samples to try, by name of the input: the main one, and with each partner that it may need."""
    names = [signature.main]
    yield {name: known.get(name) or _shape(module.config, name) for name in (*names, *known)}
    for partner in _PARTNERS:
        if partner in signature.names and partner not in names:
            yield {name: known.get(name) or _shape(module.config, name) for name in (*names, partner)}


def states_images(module: torch.nn.Module) -> bool:
    """Whether its main input are images whose size the configuration says."""
    images = describes(module) and getattr(module, "main_input_name", "") == "pixel_values"
    return images and image_shape(getattr(module, "config").to_dict()) is not None  # noqa: B009


def vocabulary(module: torch.nn.Module) -> int | None:
    """Number of tokens, where the configuration says it."""
    config = getattr(module, "config", None)
    if config is None or not describes(module):
        return None
    parts = [config, *(getattr(config, name, None) for name in ("text_config", "decoder"))]
    sizes = [getattr(part, "vocab_size", None) for part in parts]
    return next((size for size in sizes if isinstance(size, int) and size > 1), None)


def image_shape(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Shape of one image, or None where config.json does not say it."""
    config = {**config, **(config.get("vision_config") or {})}
    size, channels = config.get("image_size"), config.get("num_channels", 3)
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return (int(channels), int(height), int(width))


def _shape(config: Any, name: str) -> tuple[int, ...]:
    if name == "pixel_values":
        return image_shape(config.to_dict()) or (int(getattr(config, "num_channels", 3)), ANY_SIZE, ANY_SIZE)
    if name == "input_values":
        return (_WAVE,)
    if name == "input_features":
        return (
            int(getattr(config, "num_mel_bins", 80)),
            2 * int(getattr(config, "max_source_positions", 100)),
        )
    text = getattr(config, "text_config", None) or config
    longest = getattr(text, "max_position_embeddings", None) or _TOKENS
    return (min(_TOKENS, int(longest)),)
