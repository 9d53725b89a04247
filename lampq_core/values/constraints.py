"""Ties and pins: layers that take the same option, and layers whose option is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lampq.core.values.errors import RecordError


def check_pins(pins: Mapping[int, int], allowed: np.ndarray, names: tuple[str, ...]) -> None:
    """Check that every pin names a layer and one of its allowed options.

    Args:
        pins: Layer index to option index.
        allowed: Shape (L, J), bool.
        names: One per layer.

    Raises:
        RecordError: A pin does not; names the layer.
    """
    layers, options = allowed.shape
    for layer, option in pins.items():
        if not 0 <= layer < layers:
            raise RecordError(f"pin: there is no layer {layer}; the problem has {layers}")
        if not 0 <= option < options:
            raise RecordError(f"layer {names[layer]!r} is pinned to option {option} of {options}")
        if not allowed[layer, option]:
            raise RecordError(f"layer {names[layer]!r} is pinned to option {option}, which is not allowed")


def joined_ties(ties: Iterable[Sequence[int]], layers: int) -> tuple[tuple[int, ...], ...]:
    """Disjoint sorted groups: ties that share a layer become one, and a tie of one layer is none.

    Raises:
        RecordError: A tie names a layer that is not there.

    >>> joined_ties([(4, 2), (2, 3), (1,)], 5)
    ((2, 3, 4),)
    """
    group_of: dict[int, set[int]] = {}
    for tie in ties:
        for layer in tie:
            if not 0 <= layer < layers:
                raise RecordError(f"tie: there is no layer {layer}; the problem has {layers}")
        joined = set(tie).union(*(group_of.get(layer, ()) for layer in tie))
        for layer in joined:
            group_of[layer] = joined
    groups = {tuple(sorted(int(layer) for layer in group)) for group in group_of.values()}
    return tuple(sorted(group for group in groups if len(group) > 1))


def check_ties(
    ties: tuple[tuple[int, ...], ...], pins: Mapping[int, int], allowed: np.ndarray, names: tuple[str, ...]
) -> None:
    """Check that the layers of every tie can take the same option, their pins included.

    Args:
        ties: As `joined_ties` makes them.
        pins: Layer index to option index.
        allowed: Shape (L, J), bool.
        names: One per layer.

    Raises:
        RecordError: They cannot; names two of the layers.
    """
    for group in ties:
        pinned = [layer for layer in group if layer in pins]
        for layer in pinned[1:]:
            if pins[layer] != pins[pinned[0]]:
                raise RecordError(
                    f"layers {names[pinned[0]]!r} and {names[layer]!r} are tied but pinned to options "
                    f"{pins[pinned[0]]} and {pins[layer]}"
                )
        start = pinned[0] if pinned else group[0]
        common = allowed[start].copy()
        if pinned:
            common[np.arange(len(common)) != pins[start]] = False
        for layer in group:
            common &= allowed[layer]
            if not common.any():
                raise RecordError(
                    f"layers {names[start]!r} and {names[layer]!r} are tied "
                    f"but have no allowed option in common"
                )
