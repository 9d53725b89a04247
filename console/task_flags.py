"""Flags of metrics, and what they are measured against."""

from __future__ import annotations

import argparse
import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from lampq.adapters.data import Dataset
from lampq.console import given
from lampq.core.measuring.model import Model
from lampq.core.values.errors import RecordError
from lampq.metrics import DECODERS, METRICS
from lampq.verbs.task import Task
from lampq.verbs.truth import read_truth


def add(sub: argparse.ArgumentParser) -> None:
    """Metrics of a task."""
    group = sub.add_argument_group("metrics")
    group.add_argument(
        "--metric",
        dest="metrics",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{', '.join(METRICS.loaded)}, one of an installed package, or module:function (repeatable)",
    )
    group.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="what is right: COCO annotations (.json), a folder of masks (.png), masks or tokens as y of an .npz, "
        "or a list of tokens a line (.jsonl); otherwise labels of the data, or what the float model gives",
    )
    group.add_argument(
        "--decoder",
        metavar="NAME",
        help=f"from outputs to boxes: {', '.join(DECODERS.loaded)}, or module:function (default: told by the outputs)",
    )


def keep(sub: argparse.ArgumentParser) -> None:
    """A plan chosen by a metric."""
    add(sub)
    group = sub.add_argument_group("smallest plan that keeps a metric (instead of, or within, a budget)")
    group.add_argument(
        "--max-drop",
        metavar="1%",
        help="how far --metric may fall: a share of the float model's value (of 1 for rates of errors), or a number",
    )
    group.add_argument(
        "--val",
        metavar="DATA",
        help="samples that the metric is measured on, all of them (default: those of --data)",
    )


def kept(args: Namespace, model: Model, data: Dataset) -> dict[str, Any]:
    """What `quantize` takes of these flags, by name.

    Raises:
        LampqError: A flag says what cannot be.
    """
    if args.max_drop is None:
        if args.metrics or args.val:
            raise RecordError("--metric and --val choose a plan together with --max-drop")
        return {}
    if not args.metrics:
        raise RecordError(f"--max-drop needs a metric: --metric with one of {', '.join(METRICS.loaded)}")
    if args.val is not None:
        data = given.read_dataset(Namespace(**{**vars(args), "data": args.val, "samples": None}), model)
    inputs = None if args.val is None else data.inputs()
    return {"max_drop": args.max_drop, "task": dataclasses.replace(task(args, data), inputs=inputs)}


def task(args: Namespace, data: Dataset) -> Task:
    """The task that the flags describe, on some data.

    Raises:
        LampqError: A flag says what cannot be.
    """
    chosen: dict[str, Any] = {"metrics": args.metrics, "decoder": args.decoder}
    if not args.metrics:
        if args.truth is not None or args.decoder is not None:
            raise RecordError("--truth and --decoder go with --metric; name a metric")
        return Task.of()
    names = data.names
    truth = None if args.truth is None else read_truth(args.truth, names)
    return Task.of(labels=data.labels(), truth=truth, names=names, preprocess=data.preprocess, **chosen)


def plain(values: list[dict[str, Any]]) -> list[str]:
    """A line for each metric, its name first."""
    shown = ("value", "float_value", "against", "higher_is_better")
    return [
        " ".join(["metric", value["name"], *(f"{name}={json.dumps(value[name])}" for name in shown)])
        for value in values
    ]
