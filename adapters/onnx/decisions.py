"""What to do with the layers of a model, in this format's terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lampq.core.treatments import rule_of
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import PlanError
from lampq.core.values.fitted import Fitted
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """What to do with the layers of a model.

    Attributes:
        bits: Width of the weights by layer name; other layers stay float.
        container: `bitplane` or `int8`.
        activations: Grids of inputs by layer name; the inputs of other layers stay float.
        outputs: Grids of outputs of convolutions by layer name.
        factors: Grids of factors of products by site.
        ranks: Ranks of factors by layer name; other layers have none.
        block: Weights that share a scale, or None: one scale per output channel.
        keep_traces: Keep what exporters note at every node.
    """

    bits: Mapping[str, int]
    container: str
    activations: Mapping[str, ActivationGrid]
    outputs: Mapping[str, ActivationGrid]
    factors: Mapping[str, ActivationGrid] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    block: int | None = None
    keep_traces: bool = False

    @property
    def grids(self) -> tuple[ActivationGrid, ...]:
        """Of all activations that are rounded."""
        return (*self.activations.values(), *self.factors.values(), *self.outputs.values())

    @classmethod
    def from_plan(
        cls,
        plan: Plan,
        output_ranges: Mapping[str, tuple[float, float]] | None = None,
        *,
        without_input: Collection[str] = (),
        keep_traces: bool = False,
    ) -> Decisions:
        """The decisions of a plan.

        Args:
            plan: The plan.
            output_ranges: Smallest and largest output of convolutions by layer name.
            without_input: Layers that have no input to round, whatever width the plan gives it: tables that are
                looked up or added, and recurrent ones.
            keep_traces: Keep what exporters note at every node.

        Raises:
            PlanError: It gives an input a width but no range, or blocks where there are input widths.
        """
        ranges = output_ranges or {}
        activations = {
            layer.name: _input_grid(layer)
            for layer in plan.layers
            if layer.activation_bits is not None and layer.name not in without_input
        }
        if plan.block is not None and activations:
            raise PlanError(
                f"a scale per {plan.block} weights goes with float inputs: integer products want one per "
                f"channel; plan without --block, or without --act-bits"
            )
        return cls(
            block=plan.block,
            bits={layer.name: layer.weight_bits for layer in plan.layers},
            ranks={layer.name: layer.rank for layer in plan.layers if layer.rank},
            container=plan.container,
            activations=activations,
            factors=_factors(plan),
            outputs={
                name: ActivationGrid.from_range(*ranges[name]) for name in activations if name in ranges
            },
            keep_traces=keep_traces,
        )


def _factors(plan: Plan) -> dict[str, ActivationGrid]:
    """Grids of factors by site."""
    grids = {}
    for decision in plan.products:
        product = decision.product
        for site, fitted in ((product.left, decision.left), (product.right, decision.right)):
            if fitted is not None:
                grids[site] = _grid(site, fitted)
    return grids


def _grid(site: str, fitted: Fitted) -> ActivationGrid:
    """The grid of a site.

    Raises:
        PlanError: Its quantizer has none that is known beforehand.
    """
    rule = rule_of(fitted)
    if isinstance(rule, ActivationGrid):
        return rule
    raise PlanError(
        f"site {site}: ONNX files round on one range (uniform), not by quantizer {fitted.tag}; write what the plan "
        f"computes in float with apply --simulate"
    )


def _input_grid(layer: PlanLayer) -> ActivationGrid:
    if layer.quantizer is not None:
        return _grid(layer.name, layer.quantizer)
    if layer.activation_range is None or layer.activation_bits is None:
        raise PlanError(
            f"layer {layer.name}: the plan quantizes its input but holds no range for it: profile with data, or write "
            f"what it computes with a range for each token in float, with apply --simulate"
        )
    return ActivationGrid.from_range(*layer.activation_range, layer.activation_bits)
