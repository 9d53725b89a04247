"""Profiles made of random weights and damages, for tests that need no model."""

import dataclasses

import numpy as np

from lampq.core.quantizing.quantizer import as_rows, quantize
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.profile import Profile
from lampq.core.values.tables import known_tables

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
        rest_bytes=1000,
        tables=known_tables(
            weight_error=error,
            payload_bytes=np.array(payload),
            kl=sensitivity * error if data else None,
            logits=logits if data else None,
            logit_delta=delta.astype(np.float32) if data else None,
        ),
        samples=samples if data else 0,
        provenance={"model": "random", "digest": "0" * 64, "seed": seed},
    )


def with_inputs(profile, elements):
    """The profile with layer inputs of so many values per sample."""
    layers = [
        dataclasses.replace(
            layer,
            activation=Gaussian(
                mean=np.zeros(1),
                std=np.ones(1),
                min=-np.ones(1),
                max=np.ones(1),
                count=count * profile.samples,
            ),
        )
        for layer, count in zip(profile.layers, elements, strict=True)
    ]
    return dataclasses.replace(profile, layers=tuple(layers))


def pair_profile(seed=0, weights=(2, 4, 8), inputs=(4, 8), kinds=("patch_embed", "qkv", "fc1", "head")):
    """A profile whose options are pairs of weight and input widths; damage adds a part for each."""
    base = make_profile(seed, kinds=kinds, widths=weights)
    rng = np.random.default_rng(seed + 1)
    share = rng.uniform(0.05, 2, len(kinds))
    kl = [
        [
            base.kl[i, j] + share[i] * base.kl[i, 0] * 4.0 ** (inputs[0] - a)
            for j in range(len(weights))
            for a in inputs
        ]
        for i in range(len(kinds))
    ]
    elements = rng.integers(1, 40, len(kinds)).tolist()
    return with_inputs(
        dataclasses.replace(
            base,
            options=tuple(Option(weight_bits=w, activation_bits=a) for w in weights for a in inputs),
            tables=known_tables(
                weight_error=np.repeat(base.weight_error, len(inputs), axis=1),
                payload_bytes=np.repeat(base.payload_bytes, len(inputs), axis=1),
                kl=np.array(kl),
            ),
        ),
        elements,
    )


def tall_profile(blocks=250, seed=0):
    """A profile of four layers a block, each block with damages of its own, and without interactions."""
    few = make_profile(2, kinds=("qkv", "proj", "fc1", "fc2"), samples=2, classes=2)
    layers = tuple(
        dataclasses.replace(layer, name=f"model.vision_tower.encoder.layers.{block}.{layer.kind}.weight")
        for block in range(blocks)
        for layer in few.layers
    )
    tables = {name: np.tile(few.array(name), (blocks, 1)) for name in ("weight_error", "payload_bytes", "kl")}
    tables["kl"] = tables["kl"] * np.random.default_rng(seed).uniform(0.1, 10, (len(layers), 1))
    return dataclasses.replace(few, layers=layers, tables=known_tables(**tables))
