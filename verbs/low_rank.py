"""A plan with factors of low rank for some of its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lampq.core.values.errors import PlanError
from lampq.core.values.factors import factor_bytes
from lampq.core.values.patterns import select
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


def low_rank(plan: Plan, rules: Sequence[str]) -> Plan:
    """The plan with factors beside layers, which give back what rounding takes (`core.quantizing.low_rank`).

    Their bytes are added to those of the layers; widths stay.

    Args:
        plan: Widths, with codes for the layers' inputs, which the factors are cut to.
        rules: `PATTERN=RANK`; of two that name a layer the later one counts, and rank 0 takes factors away.

    Raises:
        PlanError: A rule names no layer, or a rank that a layer's weight cannot have; the plan rounds to the nearest
            codes, or learns them.
    """
    if not rules:
        return plan
    layers = list(plan.layers)
    for rule in rules:
        pattern, rank = _parsed(rule)
        for index in select(layers, pattern):
            layers[index] = _ranked(layers[index], rank)
    return dataclasses.replace(plan, layers=tuple(layers), predicted_kl=None, measured_kl=None, bound=None)


def _parsed(rule: str) -> tuple[str, int]:
    pattern, equals, rank = rule.rpartition("=")
    if not equals or not pattern.strip() or not rank.strip().isdecimal():
        raise PlanError(f"low rank {rule!r}: write PATTERN=RANK, for example '*.fc2=4'")
    return pattern.strip(), int(rank)


def _ranked(layer: PlanLayer, rank: int) -> PlanLayer:
    before = factor_bytes(layer.shape, layer.rank)
    # The record refuses what no factors can be beside.
    changed = dataclasses.replace(layer, rank=rank, predicted_kl=None)
    return dataclasses.replace(
        changed, payload_bytes=layer.payload_bytes - before + factor_bytes(layer.shape, rank)
    )
