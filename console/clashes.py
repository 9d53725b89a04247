"""What a command line reads and writes, by its arguments, held against each other before any work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lampq.adapters.sources import data_files, model_files, weight_files
from lampq.core.values.errors import RecordError
from lampq.core.values.files import read_json
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.verbs.formats import folder_marker

Written: TypeAlias = Callable[[Path], Sequence[Output]]
"""From an argument to the files that it stands for."""


def one_file(path: Path) -> Sequence[Output]:
    """A file and nothing beside it."""
    return (Output(path=path),)


def profile_pair(path: Path) -> Sequence[Output]:
    """A profile and its arrays."""
    return (Output.profile(path),)


def model_or_folder(path: Path) -> Sequence[Output]:
    """A quantized model: a file, or the folder of a Hugging Face model."""
    return (Output(path=path, marker=folder_marker(path)),)


def profile_files(path: str | Path) -> tuple[Path, ...]:
    """A profile and the arrays that it names."""
    path = Path(path)
    try:
        name = read_json(path, "profile")["arrays"]["file"]
    except (RecordError, KeyError, TypeError):
        # What is wrong with it is said when it is read.
        return (path,)
    return (path, path.with_name(Path(str(name)).name or path.name))


def itself(path: str | Path) -> tuple[Path, ...]:
    """A file and nothing beside it."""
    return (Path(path),)


READS: Mapping[str, Callable[[str | Path], tuple[Path, ...]]] = {
    "model": model_files,
    "reference": model_files,
    "source": model_files,
    "file": model_files,
    "left": model_files,
    "right": model_files,
    "weights": weight_files,
    "weights_a": weight_files,
    "weights_b": weight_files,
    "data": data_files,
    "calib": data_files,
    "val": data_files,
    "profile": profile_files,
    "profiles": profile_files,
    "config": itself,
    "truth": itself,
    "plan": itself,
    "plans": itself,
    "latency": itself,
    "energy": itself,
}
"""Argument -> the files behind it, whatever the verb."""

WRITES: Mapping[str, Written | None] = {
    "out": None,
    "plan_out": one_file,
    "profile_out": profile_pair,
    "simulate_out": one_file,
    "plot": one_file,
}
"""Argument -> the files it stands for, whatever the verb; of `out` each verb has its own (`flags.output`)."""


def refuse(args: Namespace) -> None:
    """Stop before any work when the outputs of a command clash with its inputs or each other, or cannot be written.

    Raises:
        OutputError: They do; see `lampq.core.values.outputs.refuse_clashes`.
    """
    values = vars(args)
    outputs: list[Output] = []
    for name, written in WRITES.items():
        if values.get(name) is not None:
            outputs.extend((written or args.written)(values[name]))
    refuse_clashes(outputs, _reads(values), force=values.get("force", False))


def _reads(values: Mapping[str, Any]) -> Iterator[Path]:
    for name, files in READS.items():
        value = values.get(name)
        for source in value if isinstance(value, list) else [value]:
            if source is not None:
                yield from files(source)
