"""Model and plan in, a float file out that computes what the quantized model computes, at any width of any site."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lampq.adapters import MODEL_FORMATS, format_named
from lampq.adapters.format import ends
from lampq.adapters.sources import model_files
from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import with_examples
from lampq.core.measuring.rewriting import with_plan_rewrites
from lampq.core.measuring.setting import plan_rule, plan_settings
from lampq.core.treatments import rule_of
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.plan import Plan
from lampq.verbs.apply import Applied, fit_to
from lampq.verbs.formats import converted, size_bytes


def simulate(
    model: Model,
    plan: Plan,
    out: str | Path,
    *,
    partial: bool = False,
    widest: bool = False,
    by_name: bool = False,
    batch: BatchLike | None = None,
    force: bool = False,
) -> Applied:
    """Write what a plan computes as a float file of standard operators, to be judged by any runtime.

    Weights are rounded and stored as floats, activations are rounded by elementary arithmetic in the file. A PyTorch
    model is exported to ONNX on the way.

    Args:
        model: The float model; it may be another file or format of the model that the plan was made from.
        plan: Widths, and quantizers of sites.
        out: File to write, `.onnx`.
        partial: Accept layers and products without a partner on either side; those of the model stay float.
        widest: Give a fused weight the widest of its parts' widths where these differ.
        by_name: Match layers by name and size where their weights differ.
        batch: Calibration inputs, preprocessed, samples first; needed by plans that round to the layers' inputs.
        force: Overwrite `out`.

    Returns:
        What was written; `error` is the share of values that the file rounds to another code than the quantizer of
        their site does, at the site where it is largest.

    Raises:
        RecordError: The plan rounds to the layers' inputs, and there are none.
        PlanError: The plan is for another model.
        AdapterError: The model cannot be had in a format that simulates, or the file does not round as it should.
    """
    out = Path(out)
    model = model if batch is None else with_examples(model, batch)
    to = check_simulation(model, out, force=force)
    model = with_plan_rewrites(model, plan)
    fitted = fit_to(model, plan, partial=partial, widest=widest, by_name=by_name, simulated=True)
    settings = plan_settings(with_plan_coding(model, fitted, batch), fitted)
    rounded = model.with_weights(
        {name: setting.weight for name, setting in settings.items() if setting.weight is not None}
    )
    with _in_format(rounded, fitted, to) as (written, placed):
        write = format_named(to).simulate
        assert write is not None  # It was chosen for that.
        error = write(written, _rules(placed), out, batch)
    return Applied(
        plan=fitted, path=out, size_bytes=size_bytes(out), notes=fitted.notes[len(plan.notes) :], error=error
    )


def check_simulation(model: Model, out: Path, *, force: bool) -> str:
    """Stop before any work where a model cannot be simulated, or not in this file; else the format that it will have.

    Raises:
        AdapterError: There is no such format, or the file has another ending.
        OutputExistsError: The file exists and `force` is false.
    """
    to = _format(model)
    if not ends(out, format_named(to).output_endings):
        raise AdapterError(
            f"{out}: a simulation is written as {format_named(to).output_endings[0]}; name such a file"
        )
    refuse_clashes([Output(path=out)], model_files(model.path), force=force)
    return to


def _format(model: Model) -> str:
    """The format that a model is simulated in.

    Raises:
        AdapterError: There is none.
    """
    own = format_named(model.format)
    for name in (own.name, *own.exports):
        if format_named(name).simulate is not None:
            return name
    able = [form.label for form in MODEL_FORMATS.loaded.values() if form.simulate is not None]
    raise AdapterError(
        f"{model.path.name}: {own.label} models have no simulation of rounded activations, {listed(able)} files and "
        f"what can be exported to them have; take the model in such a format, plans apply to it too"
    )


@contextlib.contextmanager
def _in_format(rounded: Model, plan: Plan, to: str) -> Iterator[tuple[Model, Plan]]:
    """A model whose weights are rounded in another format, and the plan under its names."""
    if to == rounded.format:
        yield rounded, plan
        return
    layers = {layer.name: layer for layer in rounded.layers()}
    own = [
        dataclasses.replace(decision, fingerprint=layers[decision.name].fingerprint, folded=None)
        for decision in plan.layers
    ]
    with converted(rounded, to) as exported:
        # An export has the rewritten weights for its own.
        placed = dataclasses.replace(plan, layers=tuple(own), rewrites=())
        yield exported, fit_to(exported, placed, simulated=True)


def _rules(plan: Plan) -> dict[str, ActivationRule]:
    """How sites are rounded, by layer and by name of the factor."""
    rules = {layer.name: plan_rule(layer) for layer in plan.layers}
    for decision in plan.products:
        setting = (decision.left, decision.product.left), (decision.right, decision.product.right)
        rules |= {site: rule_of(fitted) for fitted, site in setting if fitted is not None}
    return {site: rule for site, rule in rules.items() if rule is not None}
