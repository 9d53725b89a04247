"""`lampq apply`."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import clashes, flags, given, measure_flags, site_flags, tables
from lampq.core.measuring.reference import with_examples
from lampq.core.measuring.rewriting import with_plan_rewrites
from lampq.core.values.plan import Plan
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS, ROUNDINGS
from lampq.verbs.apply import apply
from lampq.verbs.formats import converted
from lampq.verbs.low_rank import low_rank
from lampq.verbs.simulate import simulate

EXAMPLE = "lampq apply vit.onnx plan.json -o vit-q.onnx"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    flags.model(sub)
    sub.add_argument("plan", metavar="PLAN", type=Path, help="plan made by `lampq plan` or `lampq quantize`")
    sub.add_argument(
        "--partial", action="store_true", help="go on without what either side has no match or place for"
    )
    sub.add_argument(
        "--widest", action="store_true", help="a fused weight takes the widest of its parts' widths"
    )
    sub.add_argument(
        "--by-name", action="store_true", help="match layers by name and size where weights differ"
    )
    usual = "as the plan says; inputs and corrected need --data, the samples of the profile"
    measure_flags.rounded(sub, ROUNDINGS, None, usual)
    site_flags.low_rank(sub)
    sub.add_argument(
        "--simulate",
        action="store_true",
        help="write a float ONNX file that computes what the plan computes, any width of any site, in standard "
        "operators",
    )
    flags.to(sub)
    flags.data(sub, required=False)
    flags.no_size(sub)
    flags.output(sub, "quantized model to write", clashes.model_or_folder)


def run(args: Namespace) -> None:
    """Run the verb."""
    plan = Plan.read(args.plan)
    if args.rounding:
        # Learned codes begin with codes for the layers' inputs.
        refine = plan.refine if args.rounding in (INPUTS, CORRECTED) else 0
        plan = dataclasses.replace(plan, rounding=args.rounding, refine=refine, measured_kl=None)
    plan = low_rank(plan, args.low_rank)
    source = given.read_model(args)
    inputs = given.read_dataset(args, source).inputs() if args.data else None
    # A simulation is exported with its weights rounded.
    to = None if args.simulate else args.to
    source = with_plan_rewrites(source if inputs is None else with_examples(source, inputs), plan)
    with converted(source, to) as model:
        write = simulate if args.simulate else apply
        applied = write(
            model,
            # An export has the rewritten weights for its own.
            plan if model is source else dataclasses.replace(plan, rewrites=()),
            args.out,
            partial=args.partial,
            widest=args.widest,
            by_name=args.by_name,
            batch=inputs,
            force=args.force,
        )
    facts = {"bytes": applied.size_bytes, "notes": list(applied.notes)}
    given.finish(
        args,
        lambda: {"out": str(args.out), **facts, "average_bits": applied.plan.average_bits},
        lambda: tables.facts("written and verified", {"file": str(args.out), **facts}),
    )
