"""How unlike its training data samples look to a model: terms to be made small, each a mean over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from lampq.adapters.synthetic.observation import Normalized

# Width of the kernel, and points where the density of similarities is taken.
_BANDWIDTH, _POINTS = 0.1, 21
# Patches whose similarity to all others is looked at: all pairs cost much and tell little more.
_ROWS = 8
# A scale is not taken for less than this part of its layer's: channels that are switched off would outweigh all.
_LEAST_SCALE = 0.05


def statistics_loss(normalized: Sequence[Normalized]) -> torch.Tensor:
    """KL of the channels' distribution, taken for Gaussian, to what normalizations say of the training data, nats.

    Averaged over channels and normalizations. DeepInversion (Yin et al. 2020) matches the same moments of batch
    normalizations; shift and scale say the same of their results, and nearly so of layer normalizations.
    """
    terms = []
    for item in normalized:
        mean, square = moments(item, over_samples=True)
        variance = (square - mean**2).clamp_min(1e-6)
        terms.append(0.5 * (variance + mean**2 - 1 - variance.log()).mean())
    return torch.stack(terms).mean()


def moments(item: Normalized, *, over_samples: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and mean square of every channel in units of its own shift and scale.

    Returns:
        Shape (channels,), or (samples, channels) where samples are not averaged.
    """
    scale = item.scale.float().abs()
    scale = scale.clamp_min(_LEAST_SCALE * float(scale.mean()) + 1e-12)
    standard = (item.values.float() - item.shift.float()) / scale
    axes = (0, 1) if over_samples else (1,)
    return standard.mean(axes), standard.square().mean(axes)


def confidence_loss(logits: torch.Tensor) -> torch.Tensor:
    """Negative mutual information of samples and classes, nats: least where each is sure and all classes come up.

    It takes the place of the targets that PSAQ-ViT draws, which pull a sample towards a class unlike it.

    Args:
        logits: Shape (samples, C).
    """
    own = logits.float().log_softmax(1)
    prior = own.exp().mean(0)
    return (prior * prior.clamp_min(1e-12).log()).sum() - (own.exp() * own).sum(1).mean()


def entropy_loss(attended: Sequence[torch.Tensor]) -> torch.Tensor:
    """Negative differential entropy of the similarities of patches, nats, averaged over samples and attentions.

    Photographs have patches alike and unlike, noise has all alike (PSAQ-ViT: Li et al. 2022, there with all pairs).

    Args:
        attended: Results of attentions, shape (samples, tokens, features).
    """
    terms = []
    for tokens in attended:
        unit = functional.normalize(tokens.float(), dim=-1)
        step = max(1, unit.shape[1] // _ROWS)
        similarity = (unit[:, ::step] @ unit.mT).flatten(1)
        points = torch.linspace(-1, 1, _POINTS, device=similarity.device)
        distance = (points[None, :, None] - similarity[:, None, :]) / _BANDWIDTH
        density = torch.exp(-0.5 * distance**2).mean(-1) / (_BANDWIDTH * math.sqrt(2 * math.pi))
        terms.append((density * torch.log(density + 1e-6)).sum(-1).mean() * (2 / (_POINTS - 1)))
    return torch.stack(terms).mean()


def variation_loss(images: torch.Tensor) -> torch.Tensor:
    """Total variation: mean absolute difference of neighbouring pixels, down and across.

    Args:
        images: Shape (samples, channels, height, width).
    """
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    return across + (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
