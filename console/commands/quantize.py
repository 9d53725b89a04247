"""`lampq quantize`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from lampq.console import (
    clashes,
    flag_types,
    flags,
    given,
    measure_flags,
    plan_flags,
    render,
    running,
    synthetic,
    task_flags,
)
from lampq.core.measuring.reference import with_examples
from lampq.core.values.rounding_kinds import CORRECTED, ROUNDINGS
from lampq.verbs.formats import converted
from lampq.verbs.quantize import quantize
from lampq.verbs.simulate import check_simulation, simulate

EXAMPLE = "lampq quantize vit.onnx --data calib/ --avg-bits 3 -o vit-3bit.onnx"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    flags.model(sub)
    flags.data(sub, required=True)
    synthetic.add_arguments(sub)
    measure_flags.measure(sub, rounding=CORRECTED, roundings=ROUNDINGS)
    measure_flags.selection(sub)
    plan_flags.budget(sub)
    task_flags.keep(sub)
    plan_flags.search(sub)
    plan_flags.recipe(sub)
    sub.add_argument(
        "--rounds",
        type=flag_types.whole,
        metavar="N",
        help="rounds of measuring around the plan (3; 0 where codes are fitted to the data and inputs stay float)",
    )
    sub.add_argument(
        "--refine",
        type=_steps,
        default=0,
        metavar="N",
        help="learn the codes of each block in N steps, kept where that measures better (0; PyTorch)",
    )
    running.add_arguments(sub)
    flags.to(sub)
    sub.add_argument("--plan-out", type=Path, metavar="FILE", help="write the plan too")
    sub.add_argument(
        "--profile-out",
        type=Path,
        metavar="FILE",
        help="write the profile too, for `report` and `inspect --why` (JSON; its arrays go beside it as .npz)",
    )
    sub.add_argument(
        "--simulate-out",
        type=Path,
        metavar="FILE",
        help="write what the plan computes too, as a float ONNX file (see apply --simulate)",
    )
    flags.output(sub, "quantized model to write", clashes.model_or_folder)


def _steps(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} steps: use a whole number from 0, which learns nothing")
    return int(text)


def run(args: Namespace) -> None:
    """Run the verb."""
    if args.max_drop is not None and not given.has_limit(args):
        # Something must be said; this limits nothing.
        args.average_bits = max(args.bits)
    request = given.request(args)
    source = given.read_model(args)
    data = given.read_dataset(args, source)
    inputs = data.inputs()
    if args.simulate_out:
        check_simulation(source, args.simulate_out, force=args.force)
    with (
        running.work(args, source, inputs) as work,
        converted(with_examples(source, inputs), args.to) as model,
    ):
        result = quantize(
            model,
            inputs,
            args.out,
            request,
            given.measurement(args, data),
            profile_out=args.profile_out,
            force=args.force,
            work=work,
            refine=args.refine,
            **task_flags.kept(args, source, data),
        )
        if args.plan_out:
            result.write(args.plan_out, force=args.force)
        if args.simulate_out:
            simulate(model, result, args.simulate_out, batch=inputs, force=args.force)
    given.finish(args, lambda: {"out": str(args.out), **result.to_json()}, lambda: render.plan(result))
