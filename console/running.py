"""How long work is run: from a state that a killed run kept or anew, by one process or by many workers."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import lampq
from lampq.console import flag_types
from lampq.console.progress import progress_bar
from lampq.core.measuring.reference import input_batch
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import Journal, journal_of
from lampq.core.values.messages import printable
from lampq.core.values.work import Work
from lampq.verbs.dask_workers import dask_executor
from lampq.verbs.workers import Processes

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model
    from lampq.core.values.batch import BatchLike
    from lampq.core.values.shard import Shard

# What says nothing of the result, or is told by digests.
_BESIDE = frozenset(
    (
        "run",
        "written",
        "json",
        "quiet",
        "force",
        "fresh",
        "workers",
        "dask",
        "out",
        "plan_out",
        "profile_out",
        "simulate_out",
        "model",
        "weights",
        "data",
    )
)


def add_arguments(sub: ArgumentParser) -> None:
    """How the work is run."""
    group = sub.add_argument_group("running")
    shared = group.add_mutually_exclusive_group()
    shared.add_argument(
        "--workers",
        type=flag_types.processes,
        default=1,
        metavar="N",
        help="processes that share the samples of the profile, one thread each (1: this one, with all threads)",
    )
    shared.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="share the samples among the workers of this Dask scheduler, such as tcp://host:8786 (the dask extra)",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew; without it a run that was killed goes on from the state beside its output (OUT.state)",
    )


@contextlib.contextmanager
def work(
    args: Namespace, model: Model, inputs: BatchLike | None, process: Shard | None = None
) -> Iterator[Work]:
    """How a command is carried out.

    Args:
        args: The command.
        model: What it reads.
        inputs: Its calibration inputs, or None.
        process: Which of several processes that share the work this is, or None.

    Raises:
        RecordError: See `journal`; or the work is to be shared out twice.
        OutputExistsError: Another run is at it.
        WorkerError: The scheduler cannot be reached.
    """
    shared = args.workers > 1 or args.dask
    if shared and process is not None:
        raise RecordError("--workers, --dask: torchrun shares the work out itself; leave them out")
    seen = not args.quiet and (process is None or process.index == 1)
    with (
        journal(args, model, inputs, process) as kept,
        _executor(args) as executor,
        progress_bar(enabled=seen, tell=lambda line: _tell(args.verb, line)) as progress,
    ):
        yield Work(progress=progress, journal=kept, executor=executor)


@contextlib.contextmanager
def _executor(args: Namespace) -> Iterator[Executor | None]:
    if args.dask:
        with dask_executor(args.dask) as executor:
            yield executor
    elif args.workers > 1:
        with Processes(args.workers) as executor:
            yield executor
    else:
        yield None


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
