"""What a plan says beside widths: no other tool's configuration has words for it."""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan
from lampq.core.values.rounding_kinds import NEAREST, ROUNDINGS


def losses(plan: Plan, title: str) -> tuple[str, ...]:
    """A note of what is left out where a plan becomes a configuration; none where nothing is.

    Args:
        plan: The plan.
        title: The tool, for people.
    """
    lost = tuple(_lost(plan))
    return (f"{title} is told widths alone, and not of {'; '.join(lost)}",) if lost else ()


def _lost(plan: Plan) -> Iterator[str]:
    if plan.rounding not in ROUNDINGS:
        yield f"the form of weights {plan.rounding}"
    elif plan.rounding != NEAREST:
        yield f"codes chosen by rounding {plan.rounding}" + (", then refined" if plan.refine else "")
    for what, names in (
        ("factors of low rank", [layer.name for layer in plan.layers if layer.rank]),
        ("quantizers of inputs", [layer.name for layer in plan.layers if layer.quantizer is not None]),
        ("rounded factors of attention", [product.name for product in plan.products]),
        ("rewritten normalizations", [rewrite.norm for rewrite in plan.rewrites]),
    ):
        if names:
            yield f"{what} ({listed(names)})"
