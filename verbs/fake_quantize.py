"""Model and plan in, the float model computing with rounded weights and inputs out: no file, any widths."""

from __future__ import annotations

from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.rewriting import with_plan_rewrites
from lampq.core.measuring.setting import simulated
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.plan import Plan
from lampq.verbs.apply import fit_to


def fake_quantize(
    model: Model, plan: Plan, *, partial: bool = False, batch: BatchLike | None = None
) -> Model:
    """The model as a plan has it, in float arithmetic: what a quantized file computes, before there is one.

    Args:
        model: The float model; it may be another file or format of the model that the plan was made from.
        plan: Widths.
        partial: Accept layers without a partner on either side; those of the model stay float.
        batch: Calibration inputs, preprocessed, samples first; needed by plans that round to the layers' inputs.

    Raises:
        RecordError: The plan rounds to the layers' inputs, and there are none.
        PlanError: The plan is for another model.
        AdapterError: The plan rounds inputs, and the model's format cannot do that without writing a file.
    """
    model = with_plan_rewrites(model, plan)
    fitted = fit_to(model, plan, partial=partial)
    rounded = next((layer.name for layer in fitted.layers if layer.activation_bits is not None), None)
    if rounded is not None and not rounds_activations(model):
        raise AdapterError(
            f"the plan rounds the input of {rounded}; {model.format} models do that in a file alone: apply the plan "
            f"and evaluate what is written, or evaluate the PyTorch model"
        )
    return simulated(with_plan_coding(model, fitted, batch), fitted)
