"""Profiles measured on parts of the data, put together as if measured at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.profile import Profile
from lampq.core.values.shard import original_order
from lampq.core.values.tables import merge_tables

# What shards of one measurement have in common.
_SAME = ("digest", "data", "seed", "measure", "fisher", "fisher_draws")


def merge(profiles: Sequence[Profile]) -> Profile:
    """Combine profiles of one model measured on different samples, as if measured at once.

    Damage, Fisher traces and statistics of activations are averages over samples, so the merged ones are
    those of all samples together. What is kept of single samples comes in the order of the data set where the
    profiles are all the shards of it, otherwise in the order of the profiles.

    Args:
        profiles: All shards of a data set, in any order, or profiles of data that have nothing in common.

    Raises:
        RecordError: They are of different models, options or measurements, or a shard is missing.
    """
    if not profiles:
        raise RecordError("nothing to merge")
    first = profiles[0]
    for other in profiles[1:]:
        _check(first, other)
    counts = [profile.samples for profile in profiles]
    share = np.array(counts) / sum(counts) if sum(counts) else np.full(len(profiles), 1 / len(profiles))
    shards = [profile.shard for profile in profiles if profile.shard is not None]
    order: np.ndarray | slice = original_order(shards, counts) if shards else slice(None)

    names = list(first.tables)
    tables = {
        name: merge_tables(name, [profile.tables[name] for profile in profiles], share, order)
        for name in names
    }
    return dataclasses.replace(
        first,
        layers=tuple(_merge_layer(same, share) for same in zip(*(p.layers for p in profiles), strict=True)),
        tables=tables,
        samples=sum(counts),
        shard=None,
        provenance={**first.provenance, "merged": len(profiles)},
    )


def _check(first: Profile, other: Profile) -> None:
    if (other.container, other.block, other.rounding) != (first.container, first.block, first.rounding):
        raise RecordError("profiles to merge differ in how weights are stored")
    if other.options != first.options or [a.name for a in other.layers] != [a.name for a in first.layers]:
        raise RecordError("profiles to merge differ in layers or options")
    for one, same in zip(first.layers, other.layers, strict=True):
        if not one.fingerprint.matches(same.fingerprint):
            raise RecordError(f"profiles to merge are of different models: layer {one.name} differs")
    if [layer.name for layer in first.kept] != [layer.name for layer in other.kept]:
        raise RecordError("profiles to merge keep different layers float")
    if first.heads != other.heads:
        raise RecordError("profiles to merge judge different outputs, or the same in different ways")
    if first.interacts != other.interacts:
        raise RecordError(
            "profiles to merge: only some have interactions of layers (others had no room for them), and without all "
            "of them mode superposition is lost; profile the others again, with fewer widths"
        )
    if first.rewrites != other.rewrites:
        raise RecordError(
            "profiles to merge rewrite different normalizations; profile shards of the same data"
        )
    for name in sorted(first.tables.keys() ^ other.tables.keys()):
        raise RecordError(f"profiles to merge: only some have {name}")
    if first.per_token != other.per_token:
        raise RecordError(
            "profiles to merge round activations on different grids; profile shards of the same data instead"
        )
    if (first.shard is None) != (other.shard is None):
        raise RecordError("profiles to merge: only some are shards; merge the shards first")
    mine, theirs = (None if profile.shard else _samples_of(profile) for profile in (first, other))
    if mine is not None and theirs is not None and np.array_equal(mine, theirs):
        raise RecordError(
            "profiles to merge were measured on the same samples; share these out with --shard 1/2, 2/2, ..."
        )
    if first.shard is not None:
        for name in _SAME:
            mine, theirs = first.provenance.get(name), other.provenance.get(name)
            if mine != theirs:
                raise RecordError(
                    f"shards {first.shard} and {other.shard} differ in {name}: {_short(mine)} and {_short(theirs)}"
                )


def _samples_of(profile: Profile) -> np.ndarray | None:
    """What tells the samples of one profile from those of another."""
    signature = profile.array("signature")
    return profile.array("logits") if signature is None else signature


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _merge_layer(same: tuple[Layer, ...], share: np.ndarray) -> Layer:
    first = same[0]
    activation = first.activation
    for other in same[1:]:
        if (activation is None) != (other.activation is None):
            raise RecordError(f"profiles to merge: only some have activations of layer {first.name}")
        if activation is not None and other.activation is not None:
            activation = activation.merge(other.activation)
    traces: dict[str, Any] = {}
    for name in ("fisher", "activation_fisher"):
        values = [getattr(layer, name) for layer in same]
        traces[name] = None if None in values else float(share @ np.array(values))
    return dataclasses.replace(first, activation=activation, **traces)
