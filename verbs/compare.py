"""Plans side by side: where their widths differ, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import PlanError
from lampq.core.values.match import match
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLayer:
    """One layer in every plan.

    Attributes:
        name: Its name in the first plan that has it.
        size: Number of weights.
        options: For each plan its widths as text (`w4`, `w4a8`; several where the plan knows the layer in parts of
            different widths: `w3/w4`), or None where the plan leaves it float.
    """

    name: str
    size: int
    options: tuple[str | None, ...]

    @property
    def differs(self) -> bool:
        """Whether any two plans give it different widths."""
        return len(set(self.options)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Plans side by side.

    Attributes:
        labels: What to call the plans.
        layers: All layers of all plans, in the order of the first.
        totals: Name -> one value a plan.
    """

    labels: tuple[str, ...]
    layers: tuple[ComparedLayer, ...]
    totals: Mapping[str, tuple[Any, ...]]

    @property
    def different(self) -> tuple[ComparedLayer, ...]:
        """The layers whose widths differ."""
        return tuple(layer for layer in self.layers if layer.differs)

    @property
    def same(self) -> bool:
        """Whether all plans give every layer the same widths."""
        return not self.different

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "plans": list(self.labels),
            "same": self.same,
            "layers": [
                {
                    "name": layer.name,
                    "size": layer.size,
                    "options": list(layer.options),
                    "differs": layer.differs,
                }
                for layer in self.layers
            ],
            "totals": {name: list(values) for name, values in self.totals.items()},
        }


def compare(
    plans: Sequence[Plan], labels: Sequence[str] | None = None, *, by_name: bool = False
) -> Comparison:
    """Compare plans of one model, whose layers may have different names and be fused in one and apart in another.

    Args:
        plans: At least two.
        labels: What to call them; `plan 1`, `plan 2`, ... by default.
        by_name: Match layers by name and size where their weights differ.

    Raises:
        PlanError: There are fewer than two, or one shares no layer with the first.
    """
    if len(plans) < 2:
        raise PlanError("comparing takes at least two plans")
    labels = labels or [f"plan {index + 1}" for index in range(len(plans))]
    names = [layer.name for layer in plans[0].layers]
    sizes = [layer.size for layer in plans[0].layers]
    columns: list[dict[int, list[PlanLayer]]] = [{i: [layer] for i, layer in enumerate(plans[0].layers)}]
    for plan, label in zip(plans[1:], labels[1:], strict=True):
        matching = match(plans[0].layers, plan.layers, by_name=by_name)
        if not matching.matches:
            raise PlanError(f"{label} is of another model than {labels[0]}: no layer is in both")
        column = {i: [plan.layers[j] for j in m.right] for m in matching.matches for i in m.left}
        for j in matching.only_right:
            # A layer that the first plan leaves float may be in several of the others.
            layer = plan.layers[j]
            row = _row(layer, names, sizes, len(plans[0].layers), columns)
            column[row] = [layer]
        columns.append(column)
    return Comparison(
        labels=tuple(labels),
        layers=tuple(
            ComparedLayer(name=name, size=size, options=tuple(_text(column.get(i)) for column in columns))
            for i, (name, size) in enumerate(zip(names, sizes, strict=True))
        ),
        totals={
            "average bits": tuple(plan.average_bits for plan in plans),
            "payload bytes": tuple(plan.payload_bytes for plan in plans),
            "total bytes": tuple(plan.total_bytes for plan in plans),
            "predicted KL (nats)": tuple(plan.predicted_kl for plan in plans),
            "measured KL (nats)": tuple(plan.measured_kl for plan in plans),
            "mode": tuple(plan.mode for plan in plans),
            **_judged(plans),
        },
    )


def _judged(plans: Sequence[Plan]) -> dict[str, tuple[str | None, ...]]:
    """The outputs that plans were judged by, where one of them has several."""
    outputs = [plan.provenance.get("outputs") for plan in plans]
    texts = tuple(", ".join(map(" ".join, o.items())) if isinstance(o, Mapping) else None for o in outputs)
    return {"judged outputs": texts} if any(texts) else {}


def _row(
    layer: PlanLayer,
    names: list[str],
    sizes: list[int],
    first: int,
    columns: Sequence[Mapping[int, Sequence[PlanLayer]]],
) -> int:
    """The row of a layer that the first plan does not have: that of an earlier plan, or a new one."""
    for column in columns:
        for row, layers in column.items():
            if row >= first and layers[0].fingerprint.matches(layer.fingerprint):
                return row
    names.append(layer.name)
    sizes.append(layer.size)
    return len(names) - 1


def _text(layers: Sequence[PlanLayer] | None) -> str | None:
    if layers is None:
        return None
    return "/".join(dict.fromkeys(layer.option.to_text() for layer in layers))
