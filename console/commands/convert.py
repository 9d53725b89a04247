"""`lampq convert`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq import adapters
from lampq.console import flags, given, plan_flags, render
from lampq.conversions import FORMATS
from lampq.core.measuring.model import Model
from lampq.core.values.errors import PlanError
from lampq.core.values.files import write_text
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.convert import convert, read_foreign, read_quantized

EXAMPLE = (
    "lampq convert plan.json --to torchao -o torchao.json\n"
    "  lampq convert recipe.json --from ai-edge --model vit.tflite -o plan.json\n"
    "  lampq convert vit-q.onnx --plan plan.json -o found.json    # what widths are really in the file"
)


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument(
        "source",
        metavar="FILE",
        help="with --to a plan, with --from a configuration, with neither a quantized model",
    )
    way = sub.add_mutually_exclusive_group()
    way.add_argument("--to", choices=FORMATS, metavar="FORMAT", help=f"format to write: {', '.join(FORMATS)}")
    way.add_argument(
        "--from", dest="tool", choices=FORMATS, metavar="FORMAT", help="format of FILE: the same"
    )
    group = sub.add_argument_group("the model it is for")
    group.add_argument("--model", metavar="MODEL", help="the model; its names go into the configuration")
    flags.checkpoint(group)
    group.add_argument(
        "--profile", metavar="PROFILE", type=Path, help="profile of the same model: says it as well"
    )
    group.add_argument(
        "--plan", metavar="PLAN", type=Path, help="plan of the same model: says it as well, not with --to"
    )
    sub.add_argument(
        "--partial", action="store_true", help="go on without what either side has no match or place for"
    )
    sub.add_argument(
        "--widest", action="store_true", help="a fused weight takes the widest of its parts' widths"
    )
    sub.add_argument("--fit", action="store_true", help="solve again within the widths that the tool has")
    plan_flags.rules(sub.add_argument_group("with --fit"))
    flags.output(sub, "configuration or plan to write")


def run(args: Namespace) -> None:
    """Run the verb."""
    if args.weights is not None and args.model is None:
        raise PlanError("--weights goes with --model")
    model = (
        None
        if args.model is None
        else adapters.read(args.model, **given.weights_of(args.model, args.weights))
    )
    profile = None if args.profile is None else Profile.read(args.profile)
    if args.to is not None:
        if args.plan is not None:
            raise PlanError("--plan goes with --from; the plan to convert is FILE")
        text, plan = convert(
            Plan.read(Path(args.source)),
            args.to,
            model=model,
            profile=profile,
            fit=args.fit,
            partial=args.partial,
            widest=args.widest,
            pins=args.pin,
            ties=args.tie,
        )
        write_text(args.out, text)
    else:
        reference = _reference(args, model, profile)
        if args.tool is None:
            plan = read_quantized(_model_path(args.source), reference)
        elif reference is None:
            raise PlanError(
                "a configuration names layers and no more; say of which model with --model, --profile or --plan"
            )
        else:
            plan = read_foreign(args.source, args.tool, reference, partial=args.partial)
        plan.write(args.out, force=args.force)
    given.finish(
        args,
        lambda: {
            "out": str(args.out),
            "layers": len(plan.layers),
            "average_bits": plan.average_bits,
            "notes": list(plan.notes),
        },
        lambda: render.plan(plan),
    )


def _reference(
    args: Namespace, model: Model | None, profile: Profile | None
) -> Model | Profile | Plan | None:
    plan = None if args.plan is None else Plan.read(args.plan)
    sources = [source for source in (model, profile, plan) if source is not None]
    if len(sources) > 1:
        raise PlanError("--model, --profile and --plan say the same thing; give one of them")
    return sources[0] if sources else None


def _model_path(source: str) -> str:
    if source.endswith((".json", ".csv")):
        raise PlanError(
            f"{source} is no model: pass --to FORMAT for a plan, --from FORMAT for a configuration"
        )
    return source
