"""`lampq eval`."""

from __future__ import annotations

import dataclasses
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from lampq.adapters.data.dataset import Dataset
from lampq.console import device_flags, flag_types, flags, given, render, site_flags, synthetic, task_flags
from lampq.console.fixed_inputs import read_fixed
from lampq.console.progress import progress_bar
from lampq.core.measuring.model import Model
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES
from lampq.core.values.plan import Plan
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS
from lampq.verbs.evaluate import evaluate
from lampq.verbs.formats import judged
from lampq.verbs.low_rank import low_rank

EXAMPLE = "lampq eval vit-q.onnx --data val/ --reference vit.onnx --json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    flags.model(sub)
    flags.data(sub, required=True, samples=None)
    synthetic.add_arguments(sub)
    flags.no_size(sub)
    sub.add_argument("--reference", metavar="MODEL", help="float model to compare with")
    sub.add_argument(
        "--plan",
        type=Path,
        metavar="PLAN",
        help="plan of the same model: MODEL is judged as it has it, in float arithmetic, against MODEL itself; no file "
        "is written",
    )
    site_flags.low_rank(sub)
    sub.add_argument(
        "--partial",
        action="store_true",
        help="go on without what either side has no match or place for",
    )
    sub.add_argument(
        "--calib",
        metavar="DATA",
        help="samples that the plan was made with, needed where it rounds to the layers' inputs",
    )
    sub.add_argument(
        "--calib-samples",
        type=flag_types.count,
        default=flags.CALIBRATION_SAMPLES,
        metavar="N",
        help=f"how many of them the plan was made with ({flags.CALIBRATION_SAMPLES})",
    )
    task_flags.add(sub)
    sub.add_argument("--batch", type=flag_types.count, default=64, metavar="N", help="samples per run (64)")


def run(args: Namespace) -> None:
    """Run the verb."""
    model = given.read_model(args)
    reference = None
    if args.reference is not None:
        where = device_flags.of_reference(args, args.reference)
        reference = judged(read_fixed(args.reference, where, args.constants), given.outputs(args))
    data = given.read_dataset(args, synthetic.source(args, model, reference))
    plan = low_rank(Plan.read(args.plan), args.low_rank) if args.plan else None
    if plan is not None and plan.rounding in (INPUTS, CORRECTED) and not args.calib:
        raise RecordError(
            f"{args.plan}: the plan rounds to the layers' inputs; give the samples that it was made with, --calib DATA"
        )
    calibration = None
    if args.calib:
        # As many as a profile takes, and the same ones.
        chosen = {**vars(args), "data": args.calib, "samples": args.calib_samples, "plot": None}
        calibration = given.read_dataset(Namespace(**chosen), model).inputs()
    with progress_bar(enabled=not args.quiet) as progress:
        result = evaluate(
            model,
            data.inputs(),
            data.labels(),
            task=task_flags.task(args, data),
            reference=reference,
            plan=plan,
            partial=args.partial,
            calibration=calibration,
            batch_size=args.batch,
            progress=progress,
        )
    result = dataclasses.replace(result, notes=(*result.notes, *data.notes, *_compared(data, model)))
    if not args.quiet:
        render.evaluation(args.model, result)
    print(json.dumps({"model": args.model, **result.to_json()}) if args.json else _plain(result.to_json()))


def _compared(data: Dataset, model: Model) -> tuple[str, ...]:
    """What to know of labels where the classes of the data are not those of the lone output of classes.

    Raises:
        AdapterError: There are more classes than outputs.
    """
    judged_heads = [head for head in model.heads if head.judged]
    if len(judged_heads) != 1 or judged_heads[0].role != CLASSES:
        return ()
    (head,) = judged_heads
    shape = next(spec.shape for spec in model.output_specs if spec.name == head.name) or ()
    outputs = shape[head.axis] if -len(shape) <= head.axis < len(shape) else None
    remark = None if outputs is None else data.check_classes(outputs)
    return () if remark is None else (remark,)


def _plain(values: dict[str, Any]) -> str:
    heads, metrics, notes = (values.pop(name) for name in ("heads", "metrics", "notes"))
    lines = [f"{name} {value}" for name, value in values.items() if value is not None]
    if len(heads) > 1:
        lines += [" ".join(("head", *(f"{name}={value}" for name, value in head.items()))) for head in heads]
    lines += task_flags.plain(metrics)
    return "\n".join([*lines, *(f"note {note}" for note in notes)])
