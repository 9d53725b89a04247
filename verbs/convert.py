"""Plans out to other tools, their configurations and quantized models in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lampq import adapters, conversions
from lampq.conversions import exports, imports, quantized
from lampq.conversions.entry import NoPlaceError
from lampq.conversions.losses import losses
from lampq.conversions.target import Target
from lampq.core.measuring.model import Model
from lampq.core.planning.asked import asked
from lampq.core.quantizing.coding import Coding
from lampq.core.values.bounded import read_bytes
from lampq.core.values.budget import Budget
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.layer import Layer
from lampq.core.values.match import match
from lampq.core.values.messages import listed, printable
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request
from lampq.verbs.apply import fit_to
from lampq.verbs.plan import plan as make_plan

_LARGEST = 64 << 20


def convert(
    plan: Plan,
    to: str,
    *,
    model: Model | None = None,
    profile: Profile | None = None,
    fit: bool = False,
    partial: bool = False,
    widest: bool = False,
    **rules: Sequence[str],
) -> tuple[str, Plan]:
    """A plan as the configuration of another tool.

    Args:
        plan: Widths.
        to: The tool, one of `lampq.conversions.FORMATS`.
        model: The model that the tool will read; names in the configuration are then its own, found by fingerprint.
        profile: Measurements of the model, for `fit`.
        fit: Solve again within what the tool can express, under the plan's own budget, pins and ties.
        partial: Leave out layers that the tool has no place for.
        widest: Give a fused weight the widest of its parts' widths.
        **rules: For `fit`, beside those of the plan: `pins` and `ties` of `lampq.Request`.

    Returns:
        The configuration, and the plan whose widths it has; notes say what is left out of it.

    Raises:
        PlanError: The tool cannot express the plan; names the layers.
        BudgetError: No plan within what it can express meets the budget.
    """
    refuse_unknown(rules, ("pins", "ties"), "convert")
    if fit and profile is None:
        raise PlanError("fitting solves again, which takes a profile; pass --profile PROFILE")
    if fit and profile is not None:
        request = Request.of(None, **rules)
        plan = _solved_again(plan, to, profile, model, request, partial=partial)
    if model is not None:
        model = model.with_coding(Coding(block=plan.block))
        plan = fit_to(model, plan, partial=partial, widest=widest)
    target = Target.of(model if model is not None else profile if profile is not None else plan)
    text = exports.export(plan, to, target, partial=partial)
    return text, dataclasses.replace(plan, notes=(*plan.notes, *losses(plan, conversions.find(to).TITLE)))


def read_foreign(
    path: str | Path, tool: str, reference: Model | Profile | Plan, *, partial: bool = False
) -> Plan:
    """The plan that another tool's configuration stands for.

    Args:
        path: The configuration.
        tool: One of `lampq.conversions.FORMATS`.
        reference: The model it is for, or a profile or plan of that.
        partial: Accept names that are none of its layers.

    Raises:
        PlanError: It cannot be read, or is for another model.
    """
    conversions.find(tool)
    path = Path(path)
    try:
        text = read_bytes(path, _LARGEST).decode("utf-8")
    except FileNotFoundError as err:
        raise PlanError(f"{path}: no such file") from err
    except (OSError, UnicodeDecodeError) as err:
        why = getattr(err, "strerror", None) or type(err).__name__
        raise PlanError(f"{path}: cannot be read as text ({why})") from err
    try:
        return imports.import_plan(text, tool, Target.of(reference), partial=partial)
    except PlanError as err:
        # Messages quote the file's own names.
        raise PlanError(f"{path}: {printable(str(err))}") from err


def read_quantized(path: str | Path, reference: Model | Profile | Plan | None = None) -> Plan:
    """The plan that a quantized model was written by: what widths are really in the file.

    Args:
        path: An ONNX or TFLite file, a Hugging Face folder in compressed-tensors form, or a file of lampq.
        reference: The float model, or a profile or plan of it. Layers are then named and identified as there, and the
            file's weights must be those, rounded. Without it the names are the file's own.

    Raises:
        PlanError: Nothing in the file is quantized, or it was made from another model.
        AdapterError: It cannot be read.
    """
    stored = adapters.stored(path)
    label = Path(path).name
    if reference is None:
        return quantized.stored_plan(stored, label=label, file_bytes=_size(Path(path)))

    def floats() -> Sequence[Layer]:
        try:
            return adapters.read(path).layers()
        except AdapterError:
            # Some quantized files are no models for lampq.
            return ()

    return quantized.identified_plan(stored, Target.of(reference), label=label, floats=floats)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return path.stat().st_size if path.is_file() else 0


def _solved_again(
    plan: Plan,
    to: str,
    profile: Profile,
    model: Model | None,
    more: Request,
    *,
    partial: bool,
) -> Plan:
    """The best plan within what a tool can express, with further pins and ties."""
    matching = match(plan.layers, profile.layers)
    if not matching.complete:
        raise PlanError("the profile is of another model than the plan; profile the plan's model")
    allowed = _allowed(to, profile, Target.of(profile if model is None else model))
    homeless = [layer.name for layer, widths in zip(profile.layers, allowed, strict=True) if not widths]
    if homeless and not partial:
        raise PlanError(
            f"{conversions.find(to).TITLE} has no place for {listed(homeless)}; pass --partial to leave them out"
        )
    request = asked(plan)
    # A plan that was read or made by hand has no budget but what it takes.
    budget = Budget.from_json(plan.budget or {"average_bits": plan.average_bits})
    request = dataclasses.replace(
        request, budget=budget, pins=(*request.pins, *more.pins), ties=(*request.ties, *more.ties)
    )
    solved = make_plan(_restricted(profile, allowed), request)
    return dataclasses.replace(
        solved, notes=(*solved.notes, f"solved again for {conversions.find(to).TITLE}")
    )


def _allowed(to: str, profile: Profile, target: Target) -> list[set[int]]:
    """Widths that a tool offers for each layer of a profile; none where it has no place for it."""
    form = conversions.find(to)
    offered: list[set[int]] = []
    for layer in target.layers:
        try:
            form.addresses(layer, target)
            offered.append(set(exports.weight_bits(form, layer, target)))
        except NoPlaceError:
            offered.append(set())
    widths: list[set[int]] = [set() for _ in profile.layers]
    for pairing in match(profile.layers, target.layers).matches:
        for i in pairing.left:
            widths[i] = set.intersection(*(offered[j] for j in pairing.right))
    return widths


def _restricted(profile: Profile, allowed: Sequence[set[int]]) -> Profile:
    """The profile without the widths that are not allowed, and without the layers that have none."""
    keep = [index for index, widths in enumerate(allowed) if widths]
    if not keep:
        raise PlanError("the tool has no place for any layer of the profile")
    payload = profile.payload_bytes.copy()
    for index, widths in enumerate(allowed):
        # Other tools have no factors of low rank.
        payload[index, [o.rank > 0 or o.weight_bits not in widths for o in profile.options]] = -1
        if widths and (payload[index] < 0).all():
            raise PlanError(
                f"layer {profile.layers[index].name}: the profile has none of the widths that the tool offers "
                f"({', '.join(map(str, sorted(widths)))}); profile them too"
            )
    floats = sum(4 * layer.size for layer, widths in zip(profile.layers, allowed, strict=True) if not widths)
    part = profile.part(keep).with_tables(payload_bytes=payload[keep])
    return dataclasses.replace(part, rest_bytes=profile.rest_bytes + floats)
