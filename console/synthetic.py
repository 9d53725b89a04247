"""Data that are made from the model: their flags, and the samples."""

from __future__ import annotations

import importlib.util
import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lampq.adapters.data import Dataset, Preprocess
from lampq.adapters.synthetic import synthetic
from lampq.adapters.synthetic.recipe import SynthesisRecipe
from lampq.adapters.synthetic.sheet import write_sheet
from lampq.console import tables
from lampq.console.progress import progress_bar
from lampq.core.values.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lampq.core.measuring.model import Model

_ASKED = re.compile(r"synthetic(?::(\d{1,9}))?")
_USUAL = 256


def add_arguments(sub: ArgumentParser) -> None:
    """Where synthetic samples are kept, and a picture of them."""
    group = sub.add_argument_group("data made from the model (--data synthetic, or synthetic:N)")
    group.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw a picture too: the synthetic images on a contact sheet"
    )
    group.add_argument(
        "--synthetic-folder",
        metavar="DIR",
        help="keep synthetic samples here, and take those made before (default: beside the output)",
    )


def asked(args: Namespace) -> bool:
    """Whether data are to be made; a file or folder of that name is `./synthetic`.

    Raises:
        RecordError: A contact sheet of other data is wanted, or the number of samples is none.
    """
    made = _ASKED.fullmatch(args.data) is not None
    module, colon, name = args.data.partition(":")
    if not made and colon and module == "synthetic" and importlib.util.find_spec(module) is None:
        raise RecordError(f"--data {args.data}: {name!r} is no number of samples; write synthetic:256")
    if not made and vars(args).get("plot") is not None:
        raise RecordError(
            f"--plot shows synthetic data; --data {args.data} are pictures already, or have none"
        )
    return made


def source(args: Namespace, model: Model, reference: Model | None) -> Model:
    """Which of two models the data are for: made data follow the float one, as far as its inputs are known."""
    if reference is None or not asked(args):
        return model
    definite = all(spec.shape and None not in spec.shape[1:] for spec in reference.input_specs)
    return reference if definite else model


def read(
    args: Namespace, model: Model, preprocess: Preprocess | None, constants: Mapping[str, Any]
) -> Dataset:
    """The samples that the flags ask for, shown and kept where they say.

    Raises:
        LampqError: They cannot be made or written.
    """
    match = _ASKED.fullmatch(args.data)
    count = match[1] if match is not None else None
    with progress_bar(enabled=not args.quiet) as progress:
        dataset = synthetic(
            model,
            int(count) if count is not None else args.samples or _USUAL,
            seed=args.seed,
            preprocess=preprocess,
            constants=constants,
            recipe=SynthesisRecipe(shapes=tuple(args.input_shapes)),
            cache_folder=_folder(args),
            progress=progress,
        )
    if not args.quiet:
        tables.facts("", {"data": dataset.notes[0]})
    if vars(args).get("plot") is not None:
        write_sheet(dataset, args.plot)
    return dataset


def _folder(args: Namespace) -> Path | None:
    """Where samples are kept: in a folder that is named, else beside what is written."""
    named, out = vars(args).get("synthetic_folder"), vars(args).get("out")
    if named is not None:
        return Path(named)
    return None if out is None else Path(out).parent
