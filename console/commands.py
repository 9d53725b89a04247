"""One function per verb: arguments in, files and tables out."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lampq import adapters
from lampq.adapters.data import Dataset, Preprocess, find_preprocess, read_data
from lampq.console import render
from lampq.console.progress import progress_bar
from lampq.core.errors import AdapterError, BudgetError
from lampq.core.files import refuse_existing
from lampq.core.layer import KINDS
from lampq.core.plan import Plan
from lampq.core.profile import Profile
from lampq.verbs.apply import apply
from lampq.verbs.demo import demo
from lampq.verbs.evaluate import evaluate
from lampq.verbs.inspect import inspect
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile
from lampq.verbs.quantize import quantize
from lampq.verbs.sweep import sweep, write_csv, write_plot

if TYPE_CHECKING:
    from lampq.core.model import Model


def run_profile(args: Namespace) -> None:
    """`lampq profile`."""
    refuse_existing(args.out, force=args.force)
    refuse_existing(args.out.with_suffix(".npz"), force=args.force)
    model = _read_model(args)
    data = None if args.no_data else _read_data(args, model)
    with progress_bar(enabled=not args.quiet) as progress:
        result = profile(
            model,
            None if data is None else data.inputs(),
            data_summary=None if data is None else data.summary(),
            seed=args.seed,
            progress=progress,
            **_measurement(args),
        )
    result.write(args.out, force=args.force)
    _finish(args, lambda: inspect(args.out).to_json(), lambda: render.listing(inspect(args.out)))


def run_plan(args: Namespace) -> None:
    """`lampq plan`."""
    _require_budget(args)
    refuse_existing(args.out, force=args.force)
    result = plan(Profile.read(args.profile), **_budget(args), **_search(args), seed=args.seed)
    result.write(args.out, force=args.force)
    _finish(args, result.to_json, lambda: render.plan(result))


def run_apply(args: Namespace) -> None:
    """`lampq apply`."""
    refuse_existing(args.out, force=args.force)
    chosen = Plan.read(args.plan)
    apply(_read_model(args), chosen, args.out, partial=args.partial, force=args.force)
    size = args.out.stat().st_size
    _finish(
        args,
        lambda: {"out": str(args.out), "bytes": size, "average_bits": chosen.average_bits},
        lambda: render.facts("written and verified", {"file": str(args.out), "bytes": size}),
    )


def run_quantize(args: Namespace) -> None:
    """`lampq quantize`."""
    _require_budget(args)
    refuse_existing(args.out, force=args.force)
    if args.plan_out:
        refuse_existing(args.plan_out, force=args.force)
    model = _read_model(args)
    data = _read_data(args, model)
    with progress_bar(enabled=not args.quiet) as progress:
        result = quantize(
            model,
            data.inputs(),
            args.out,
            rounds=args.rounds,
            force=args.force,
            seed=args.seed,
            data_summary=data.summary(),
            progress=progress,
            **_budget(args),
            **_search(args),
            **_measurement(args),
        )
    if args.plan_out:
        result.write(args.plan_out, force=args.force)
    _finish(args, lambda: {"out": str(args.out), **result.to_json()}, lambda: render.plan(result))


def run_eval(args: Namespace) -> None:
    """`lampq eval`."""
    model = _read_model(args)
    data = _read_data(args, model)
    reference = adapters.read(args.reference) if args.reference else None
    with progress_bar(enabled=not args.quiet) as progress:
        result = evaluate(
            model, data.inputs(), data.labels(), reference=reference, batch_size=args.batch, progress=progress
        )
    if not args.quiet:
        render.evaluation(args.model, result)
    print(json.dumps({"model": args.model, **result.to_json()}) if args.json else _plain(result.to_json()))


def run_sweep(args: Namespace) -> None:
    """`lampq sweep`."""
    refuse_existing(args.out, force=args.force)
    if args.plot:
        refuse_existing(args.plot, force=args.force)
    found = Profile.read(args.profile)
    points = sweep(found, mode=args.mode, pins=args.pin, ties=args.tie, seed=args.seed)
    if args.plot:
        write_plot(points, args.plot, force=args.force)
    write_csv(found, points, args.out, force=args.force)
    knee = next((point for point in points if point.knee), points[0])
    summary = {
        "points": len(points),
        "knee_average_bits": knee.average_bits,
        "knee_size_bytes": knee.size_bytes,
        "knee_predicted_kl": knee.predicted_kl,
    }
    _finish(args, lambda: {"out": str(args.out), **summary}, lambda: render.facts("every budget", summary))


def run_inspect(args: Namespace) -> None:
    """`lampq inspect`."""
    found = inspect(args.file)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        render.listing(found)


def run_demo(args: Namespace) -> None:
    """`lampq demo`."""
    with progress_bar(enabled=not args.quiet) as progress:
        rows = demo(args.out, force=args.force, progress=progress)
    if not args.quiet:
        render.demo(rows)
    if args.json:
        print(json.dumps([row.to_json() for row in rows]))
    elif args.out:
        print(args.out)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "profile": run_profile,
    "plan": run_plan,
    "apply": run_apply,
    "quantize": run_quantize,
    "eval": run_eval,
    "sweep": run_sweep,
    "inspect": run_inspect,
    "demo": run_demo,
}


def _read_model(args: Namespace) -> Model:
    kinds = {}
    for text in args.kind:
        pattern, _, kind = text.rpartition("=")
        if kind not in KINDS or not pattern:
            raise AdapterError(f"--kind {text!r}: write PATTERN=KIND with a kind of {', '.join(KINDS)}")
        kinds[pattern] = kind
    options: dict[str, Any] = {"kinds": kinds or None}
    if args.weights:
        if adapters.detect(args.model) != "factory":
            raise AdapterError(f"--weights goes with a factory; {args.model} holds its own")
        options["weights"] = args.weights
    return adapters.read(args.model, **options)


def _read_data(args: Namespace, model: Model) -> Dataset:
    return read_data(
        args.data,
        input_spec=model.input_spec,
        preprocess=_preprocess(args, model),
        samples=args.samples,
        seed=args.seed,
    )


def _preprocess(args: Namespace, model: Model) -> Preprocess:
    """The preset, else what lies beside the model, else pixels in [0, 1]; single options override either."""
    if args.preset:
        base = Preprocess.preset(args.preset)
    else:
        base = find_preprocess(model.path, model.input_spec) or Preprocess()
    given = {"size": args.image_size, "mean": args.mean, "std": args.std}
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


def _measurement(args: Namespace) -> dict[str, Any]:
    return {
        "bits": args.bits,
        "act_bits": args.act_bits,
        "container": args.container,
        "fisher_draws": args.fisher_draws,
    }


def _require_budget(args: Namespace) -> None:
    if args.average_bits is None and args.size_bytes is None and args.max_kl is None:
        raise BudgetError("no budget: give --avg-bits, --size or --max-kl")


def _budget(args: Namespace) -> dict[str, Any]:
    return {"average_bits": args.average_bits, "size_bytes": args.size_bytes, "max_kl": args.max_kl}


def _search(args: Namespace) -> dict[str, Any]:
    return {
        "mode": args.mode,
        "solver": args.solver,
        "time_limit_s": args.time_limit,
        "pins": args.pin,
        "ties": args.tie,
    }


def _finish(args: Namespace, as_json: Callable[[], dict[str, Any]], show: Callable[[], None]) -> None:
    if not args.quiet:
        show()
    print(json.dumps(as_json()) if args.json else args.out)


def _plain(values: dict[str, Any]) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items() if value is not None)
