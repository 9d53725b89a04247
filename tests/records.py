"""Profiles made of random weights and damages, for tests that need no model."""

import numpy as np

from lampq.core.layer import Layer
from lampq.core.option import Option
from lampq.core.profile import Profile
from lampq.core.quantizer import as_rows, quantize

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
KINDS = ("patch_embed", "qkv", "proj", "fc1", "fc2", "qkv", "proj", "fc1", "fc2", "head")


def make_profile(seed=0, *, samples=6, classes=4, data=True, kinds=KINDS, widths=WIDTHS):
    rng = np.random.default_rng(seed)
    layers, error, payload = [], [], []
    for index, kind in enumerate(kinds):
        shape = (8 * int(rng.integers(1, 4)), 8 * int(rng.integers(1, 5)))
        weight = (rng.normal(size=shape) * rng.uniform(0.01, 0.1)).astype(np.float32)
        layer = Layer.from_weight(f"blocks.{index}.{kind}", weight, kind=kind, channel_axis=0)
        errors = [float(quantize(as_rows(weight, 0), bits).squared_error.sum()) for bits in widths]
        error.append(errors)
        payload.append([bits * (layer.size + 7) // 8 + 4 * layer.channels for bits in widths])
        layers.append(layer)
    error = np.array(error)
    logits = rng.normal(size=(samples, classes)).astype(np.float32)
    sensitivity = rng.uniform(0.5, 20, len(kinds))[:, None]
    if data:
        import dataclasses

        sizes = np.array([layer.size for layer in layers])
        layers = [
            dataclasses.replace(layer, fisher=float(2 * s * n), macs=layer.size)
            for layer, s, n in zip(layers, sensitivity[:, 0], sizes, strict=True)
        ]
        delta = (
            rng.normal(size=(len(kinds), 1, samples, classes))
            * np.sqrt(sensitivity * error)[:, :, None, None]
        )
    return Profile(
        layers=tuple(layers),
        options=tuple(Option(weight_bits=bits) for bits in widths),
        weight_error=error,
        payload_bytes=np.array(payload),
        rest_bytes=1000,
        kl=sensitivity * error if data else None,
        logits=logits if data else None,
        logit_delta=delta.astype(np.float32) if data else None,
        samples=samples if data else 0,
        provenance={"model": "random", "digest": "0" * 64, "seed": seed},
    )
