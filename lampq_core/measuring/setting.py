"""What a quantized layer computes with: its rounded weights, and how its input is rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lampq.core.measuring.encoding import encoder
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.quantizing.quantizer import weight_of
from lampq.core.treatments import rule_of
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.product import Product

if TYPE_CHECKING:
    from lampq.core.values.layer import Layer
    from lampq.core.values.plan import Plan
    from lampq.core.values.plan_layer import PlanLayer
    from lampq.core.values.profile import Profile


AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A layer, or a product of two activations, as a quantized model has it.

    Attributes:
        weight: Dequantized weights in the shape of the layer's record, or None: as they are.
        activation: How the layer's input, or the right factor of a product, is rounded, or None: it stays float.
        left: How the left factor of a product is rounded, or None.
    """

    weight: np.ndarray | None = None
    activation: ActivationRule | None = None
    left: ActivationRule | None = None


RoundedLayers = Mapping[str, tuple[Sequence[np.ndarray], Sequence[ActivationRule | None]]]
"""Layer -> its weights, dequantized, at W widths, and the rules of its input at A widths; None leaves it float."""


def rounded_weight(model: Model, layer: Layer, bits: int, rank: int = 0) -> np.ndarray:
    """A layer's weight at a width, dequantized, with factors of a rank added, in the shape of its record."""
    quantized = encoder(model, layer.name, layer.channel_axis)(bits, rank)
    return weight_of(quantized, layer.shape, layer.channel_axis)


def input_range(profile: Profile, layer: int, option: int) -> tuple[float, float] | None:
    """Ends of the grid of a layer's input at an option (both by index); None where there is none beforehand."""
    if layer >= len(profile.layers) or profile.quantizers:
        return None
    seen = profile.layers[layer].activation
    if profile.options[option].activation_bits is None or seen is None or profile.per_token:
        return None
    if profile.activation_range is None:
        return float(seen.min[0]), float(seen.max[0])
    low, high = profile.activation_range[layer, option].tolist()
    return low, high


def profile_rule(profile: Profile, layer: int, option: int) -> ActivationRule | None:
    """How the input of a layer, or the right factor of a product, is rounded at an option (both by index); None: it
    stays float.
    """
    bits, place = profile.options[option].activation_bits, profile.places[layer]
    site = place.right if isinstance(place, Product) else place.name
    return input_rule(bits, input_range(profile, layer, option), profile.quantizer(site, bits))


def profile_weight(model: Model, profile: Profile, layer: int, option: int) -> np.ndarray:
    """The weight of a layer at an option (both by index), dequantized, in the shape of its record."""
    return rounded_weight(model, profile.layers[layer], *profile.options[option].weights)


def profile_setting(model: Model, profile: Profile, layer: int, option: int) -> Setting:
    """A place at an option (both by index)."""
    place = profile.places[layer]
    if isinstance(place, Product):
        left = profile.quantizer(place.left, profile.options[option].weight_bits)
        return Setting(
            left=None if left is None else rule_of(left), activation=profile_rule(profile, layer, option)
        )
    weight = profile_weight(model, profile, layer, option)
    return Setting(weight=weight, activation=profile_rule(profile, layer, option))


def plan_rule(decision: PlanLayer) -> ActivationRule | None:
    """How a plan rounds the input of a layer: without a quantizer and a range, every token on its own grid.

    Raises:
        RecordError: No quantizer here has the tag; names it and the layer.
    """
    if decision.quantizer is not None:
        return _rule(decision.quantizer, decision.name)
    return input_rule(decision.activation_bits, decision.activation_range)


def plan_settings(model: Model, plan: Plan) -> dict[str, Setting]:
    """Layer -> its setting in a plan that has the model's own layer names."""
    layers = {layer.name: layer for layer in model.layers()}
    settings = {
        decision.name: Setting(
            weight=rounded_weight(model, layers[decision.name], *decision.option.weights),
            activation=plan_rule(decision),
        )
        for decision in plan.layers
    }
    return settings | site_settings(plan)


def simulated(model: AnyModel, plan: Plan) -> AnyModel:
    """The model with the weights of a plan, and its inputs rounded where the model can do that."""
    settings = plan_settings(model, plan)
    rounds = rounds_activations(model)
    if rounds:
        return model.with_weights(settings)
    weights = {name: setting.weight for name, setting in settings.items() if setting.weight is not None}
    return model.with_weights(weights)


def site_settings(plan: Plan) -> dict[str, Setting]:
    """Product -> how a plan rounds its factors."""
    return {
        product.name: Setting(
            left=None if product.left is None else _rule(product.left, product.name),
            activation=None if product.right is None else _rule(product.right, product.name),
        )
        for product in plan.products
    }


def _rule(fitted: Fitted, place: str) -> ActivationRule:
    try:
        return rule_of(fitted)
    except RecordError as err:
        raise RecordError(f"{place}: {err}") from err


def input_rule(
    bits: int | None, ends: tuple[float, float] | None, fitted: Fitted | None = None
) -> ActivationRule | None:
    """How an input is rounded that has a width, and the ends of a grid or a quantizer; None: it stays float."""
    if fitted is not None:
        return rule_of(fitted)
    if bits is None:
        return None
    return TokenGrid(bits=bits) if ends is None else ActivationGrid.from_range(*ends, bits)
