"""From parsed flags to what the verbs take, and from their results to standard output."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lampq import adapters
from lampq.adapters.data import Dataset, Preprocess, image_input, preprocess_for, read_data
from lampq.console import device_flags, flag_types, synthetic
from lampq.console.fixed_inputs import constants_of_data, read_fixed
from lampq.core.allocating.cost_csv import read_cost_table
from lampq.core.values.budget import Budget
from lampq.core.values.errors import AdapterError, BudgetError
from lampq.core.values.fisher_kinds import EMPIRICAL
from lampq.core.values.head import HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import KINDS
from lampq.core.values.measurement import Measurement
from lampq.core.values.recipe import Recipe
from lampq.core.values.request import Request
from lampq.verbs.formats import judged

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model


def read_model(args: Namespace) -> Model:
    """The model that the flags name.

    Raises:
        LampqError: It cannot be read, or a flag says what cannot be.
    """
    if vars(args).get("size") is not None:
        raise AdapterError(flag_types.BYTES.format(args.size))
    kinds = {}
    for text in args.kind:
        pattern, _, kind = text.rpartition("=")
        if kind not in KINDS or not pattern:
            raise AdapterError(f"--kind {text!r}: write PATTERN=KIND with a kind of {', '.join(KINDS)}")
        kinds[pattern] = kind
    chosen = outputs(args)
    own = {"kinds": kinds} if kinds else {}
    return judged(read_fixed(args.model, {**own, **read_options(args, args.model)}, args.constants), chosen)


def outputs(args: Namespace) -> list[HeadChoice]:
    """How outputs are to be judged.

    Raises:
        RecordError: One is of another form.
    """
    return [HeadChoice.parse(text) for text in args.outputs]


def read_options(args: Namespace, model: str) -> dict[str, Any]:
    """Arguments of the reader of a model: what was asked for, and nothing else.

    Raises:
        AdapterError: The model takes no checkpoint, or no device.
    """
    anew = {"requantize": True} if args.requantize else {}
    where = device_flags.options(args, model)
    return {**anew, **where, **_shapes_of(args, model), **weights_of(model, args.weights)}


def _shapes_of(args: Namespace, model: str) -> dict[str, Any]:
    if not args.input_shapes:
        return {}
    if not adapters.format_of(model).takes_shapes(model):
        if "data" in args and args.data is not None and synthetic.asked(args):
            return {}  # They are the shapes of the samples to make.
        raise AdapterError(
            f"--input-shape goes with a PyTorch model or --data synthetic; {model} says the shapes of its inputs"
        )
    return {"input_shape": dict(args.input_shapes)}


def weights_of(model: str, weights: str | None) -> dict[str, str]:
    """The checkpoint of a model, as an argument for reading it.

    Raises:
        AdapterError: The model is no factory and holds its own.
    """
    if weights is None:
        return {}
    if model.endswith(".json") or not adapters.format_of(model).is_code(model):
        raise AdapterError(f"--weights goes with a factory; {model} is no factory and holds its own")
    return {"weights": weights}


def read_dataset(args: Namespace, model: Model) -> Dataset:
    """The data that the flags name, shaped for the model."""
    specs, constants = model.input_specs, constants_of_data(args.constants, model)
    image = image_input([spec for spec in specs if spec.name not in constants])
    preprocess = None if image is None else _preprocess(args, model, image)
    if synthetic.asked(args):
        return synthetic.read(args, model, preprocess, constants)
    return read_data(
        args.data,
        input_specs=specs,
        constants=constants,
        model=model.path,
        preprocess=preprocess,
        samples=args.samples,
        seed=args.seed,
    )


def _preprocess(args: Namespace, model: Model, image: InputSpec) -> Preprocess:
    return preprocess_for(
        model.path, image, preset=args.preset, size=args.image_size, mean=args.mean, std=args.std
    )


def measurement(args: Namespace, data: Dataset | None) -> Measurement:
    """What is measured; labels are read only where they count.

    Raises:
        RecordError: A choice cannot be.
    """
    return Measurement(
        bits=args.bits,
        ranks=args.ranks,
        act_bits=args.act_bits,
        act_range=args.act_range,
        sites=args.sites,
        quantizers=args.quantizers,
        rewrites=args.rewrites,
        container=args.container,
        block=args.block,
        rounding=args.rounding,
        measure=args.measure,
        fisher=args.fisher,
        fisher_draws=args.fisher_draws,
        seed=args.seed,
        keep=args.keep,
        only=args.only,
        labels=data.labels() if data is not None and args.fisher == EMPIRICAL else None,
        data_summary={} if data is None else data.summary(),
        scores=tuple(vars(args).get("scores", ())),
    )


def budget(args: Namespace) -> Budget:
    """The limits; tables are read.

    Raises:
        BudgetError: There is none, or one is malformed.
    """
    tables = []
    for name in ("latency", "energy"):
        path, limit = getattr(args, name), getattr(args, f"max_{name}")
        if path is not None:
            tables.append(read_cost_table(path, name=name, limit=limit))
        elif limit is not None:
            raise BudgetError(f"--max-{name} {limit}: give the table too, --{name} table.csv")
    return Budget(
        average_bits=args.average_bits,
        average_input_bits=args.average_input_bits,
        size_bytes=args.size_bytes,
        max_kl=args.max_kl,
        max_bops=args.max_bops,
        max_activation_bytes=args.max_activation_bytes,
        tables=tuple(tables),
        at_most=tuple(args.at_most),
        floors=tuple(args.floors),
        ceilings=tuple(args.ceilings),
    )


def limits(args: Namespace) -> Budget | None:
    """Limits beside what is swept, or None.

    Raises:
        BudgetError: One is malformed.
    """
    swept = dict.fromkeys(("average_bits", "average_input_bits", "size_bytes", "max_kl"))
    limited = Namespace(**{**vars(args), **swept})
    return budget(limited) if has_limit(limited) else None


def has_limit(args: Namespace) -> bool:
    """Whether any flag limits what a plan may cost."""
    names = ("average_bits", "average_input_bits", "size_bytes", "max_kl", "max_bops", "max_activation_bytes")
    tables = ("latency", "energy", "max_latency", "max_energy")
    rules = args.at_most or args.floors or args.ceilings
    return bool(rules) or any(getattr(args, name) is not None for name in (*names, *tables))


def request(args: Namespace) -> Request:
    """What a plan is asked to be, by all flags of its verb.

    Raises:
        LampqError: A flag says what cannot be.
    """
    return dataclasses.replace(
        _rules(args, budget(args)),
        solver=args.solver,
        time_limit_s=args.time_limit,
        recipe=_recipe(args),
        **({"rounds": args.rounds} if "rounds" in args else {}),
    )


def limited(args: Namespace) -> Request:
    """What every plan of a sweep is asked to be.

    Raises:
        LampqError: A flag says what cannot be.
    """
    return _rules(args, limits(args))


def _rules(args: Namespace, budget: Budget | None) -> Request:
    return Request(budget=budget, mode=args.mode, pins=args.pin, ties=args.tie, seed=args.seed)


def _recipe(args: Namespace) -> Recipe:
    """The choices of mode lampq.

    Raises:
        RecordError: One of them cannot be.
    """
    return Recipe(
        type_scale=args.type_scale,
        probes=args.probes,
        beta=args.beta,
        gamma=args.gamma,
        table=args.error_table,
        most_swaps=args.max_swaps,
        weighted=args.weighted_errors,
    )


def finish(args: Namespace, as_json: Callable[[], dict[str, Any]], show: Callable[[], None]) -> None:
    """Show the result to people, and print its path or JSON for scripts."""
    if not args.quiet:
        show()
    print(json.dumps(as_json()) if args.json else args.out)
