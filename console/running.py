"""How long work is run: from a state that a killed run kept, or anew."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

import lampq
from lampq.core.measuring.reference import input_batch
from lampq.core.values.journal import Journal, journal_of
from lampq.core.values.messages import printable

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model
    from lampq.core.values.batch import BatchLike
    from lampq.core.values.shard import Shard

# What says nothing of the result, or is told by digests.
_BESIDE = frozenset(
    (
        "run",
        "parser",
        "written",
        "json",
        "quiet",
        "force",
        "fresh",
        "out",
        "plan_out",
        "profile_out",
        "model",
        "weights",
        "data",
    )
)


def add_arguments(sub: ArgumentParser) -> None:
    """How the work is run."""
    group = sub.add_argument_group("running")
    group.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew; without it a run that was killed goes on from the state beside its output (OUT.state)",
    )


@contextlib.contextmanager
def journal(
    args: Namespace, model: Model, inputs: BatchLike | None, process: Shard | None = None
) -> Iterator[Journal]:
    """The journal of a command, beside its output.

    Args:
        args: The command.
        model: What it reads.
        inputs: Its calibration inputs, or None.
        process: Which of several processes that share the work this is, or None.

    Raises:
        RecordError: A journal is there, of another command, model, data or version.
        OutputExistsError: Another run is at it.
    """
    said = {name.replace("_", " "): str(value) for name, value in vars(args).items() if name not in _BESIDE}
    data = "none" if inputs is None else input_batch(model, inputs).digest
    owner = {**said, "version": lampq.__version__, "model": model.digest, "data": data}
    output = args.out if process is None else args.out.with_name(f"{args.out.name}.{process.index}")
    with journal_of(output, owner, fresh=args.fresh, tell=lambda line: _tell(args.verb, line)) as kept:
        yield kept


def _tell(verb: str, line: str) -> None:
    print(f"lampq {verb}: {printable(line)}", file=sys.stderr)
