"""Products of two activations of a plan, found in a model."""

from __future__ import annotations

from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan
from lampq.core.values.plan_product import PlanProduct


def placed_products(model: Model, plan: Plan, *, partial: bool) -> tuple[PlanProduct, ...]:
    """The decisions on products that the model has, by name.

    Args:
        model: The model; it may be another file of the model that the plan was made from.
        plan: The plan.
        partial: Leave out products that the model has not.

    Raises:
        AdapterError: The format cannot round what the plan rounds; names it, and what the format can.
        PlanError: The model lacks a product.
    """
    if not rounds_activations(model):
        _refuse(model, plan)
        return ()
    if not plan.products:
        return ()
    known = {product.name for product in model.products()}
    lacking = [product.name for product in plan.products if product.name not in known]
    if lacking and not partial:
        raise PlanError(
            f"the plan does not fit {model.path.name}: it lacks the products {listed(lacking)}; pass --partial to "
            f"apply the rest"
        )
    return tuple(product for product in plan.products if product.name in known)


def _refuse(model: Model, plan: Plan) -> None:
    rounded = [
        *(f"{layer.name} ({layer.quantizer.tag})" for layer in plan.layers if layer.quantizer is not None),
        *(product.name for product in plan.products if product.left or product.right),
    ]
    if rounded:
        raise AdapterError(
            f"{model.path.name}: {model.format} models cannot round {listed(rounded, most=3)} as the plan has it; they "
            f"can round layers' inputs to 8 bits on one range: apply the plan to the PyTorch model, or plan without "
            f"--sites"
        )
