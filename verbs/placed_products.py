"""Products of two activations of a plan, found in a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lampq.adapters import format_named
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.setting import plan_rule, site_settings
from lampq.core.treatments.roles import role_of
from lampq.core.treatments.uniform import UNIFORM
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.messages import listed
from lampq.core.values.option import ACTIVATION_WIDTHS
from lampq.core.values.plan import Plan
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.product import Product


def placed_products(
    model: Model, plan: Plan, *, partial: bool, simulated: bool = False
) -> tuple[PlanProduct, ...]:
    """The decisions on products that the model has: by name, or all of them by order where names differ.

    Args:
        model: The model; it may be another file of the model that the plan was made from.
        plan: The plan.
        partial: Leave out products that the model has not.
        simulated: Whether the model is to be written in float, with sites rounded as the plan says.

    Raises:
        AdapterError: The format cannot round what the plan rounds; names it, and what the format can.
        PlanError: The model lacks a product.
        RecordError: No quantizer here has a tag of the plan; names it and the place.
    """
    if not rounds_activations(model):
        if not simulated:
            _refuse(model, plan)
        if not any(decision.left or decision.right for decision in plan.products):
            return ()
    for layer in plan.layers:
        plan_rule(layer)
    site_settings(plan)
    if not plan.products:
        return ()
    products = model.products() if rounds_activations(model) else format_named(model.format).products(model)
    known = {product.name: product for product in products}
    lacking = [product.name for product in plan.products if product.name not in known]
    if lacking and _alike(model, plan.products, products):
        known = {mine.name: theirs for mine, theirs in zip(plan.products, products, strict=True)}
    elif lacking and not partial:
        raise PlanError(
            f"the plan does not fit {model.path.name}: it lacks the products {listed(lacking)}; pass --partial to "
            f"apply the rest"
        )
    return _placed(plan, known)


def _placed(plan: Plan, known: Mapping[str, Product]) -> tuple[PlanProduct, ...]:
    return tuple(
        dataclasses.replace(decision, product=known[decision.name])
        for decision in plan.products
        if decision.name in known
    )


def _alike(model: Model, decisions: Sequence[PlanProduct], products: Sequence[Product]) -> bool:
    """Whether products are the same in the same order, whatever they are called."""
    # Of samples of any length every model has seen others.
    sized = all(spec.shape and None not in spec.shape[1:] for spec in model.input_specs)
    ours = [_form(decision.product, sized=sized) for decision in decisions]
    return ours == [_form(product, sized=sized) for product in products]


def _form(product: Product, *, sized: bool) -> tuple[str | int, ...]:
    roles = role_of(product.left), role_of(product.right)
    return (*roles, product.left_values, product.right_values, product.macs) if sized else roles


def _refuse(model: Model, plan: Plan) -> None:
    """Refuse what a file of the model's format does not hold.

    Raises:
        AdapterError: There is something; names it, and what there is.
    """
    form = format_named(model.format)
    factors = form.simulate is not None
    sites = [(layer.name, layer.quantizer, True) for layer in plan.layers]
    for decision in plan.products:
        product = decision.product
        sites += [(product.left, decision.left, factors), (product.right, decision.right, factors)]
    refused = [
        f"{name} ({fitted.tag} of {fitted.bits} bits)"
        for name, fitted, has_site in sites
        if fitted is not None
        and not (has_site and fitted.tag == UNIFORM.name and fitted.bits in form.input_bits)
    ]
    if refused:
        raise AdapterError(
            f"{model.path.name}: {model.format} models cannot round {listed(refused, most=3)} as the plan has it; they "
            f"can round layers' inputs{' and factors of products' if factors else ''} to "
            f"{_widths(form.input_bits)} bits on one range (uniform): choose other quantizers, apply the plan to the "
            f"PyTorch model, or write what it computes in float with apply --simulate"
            f"{'' if factors else ', of an ONNX file'}"
        )


def _widths(bits: Sequence[int]) -> str:
    return "2 to 8 or 16" if tuple(bits) == ACTIVATION_WIDTHS else " or ".join(map(str, bits))
