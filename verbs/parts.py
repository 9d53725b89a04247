"""A profile whose samples are shared out among workers: parts of the data, merged as if measured at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from lampq import adapters
from lampq.adapters.again import Reading
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch
from lampq.core.quantizing.coding import Coding, Kept
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.journal import NOWHERE, Journal, Sibling
from lampq.core.values.measurement import Measurement
from lampq.core.values.merge import merge
from lampq.core.values.profile import Profile
from lampq.core.values.shard import Shard
from lampq.core.values.work import Work
from lampq.verbs.formats import judged
from lampq.verbs.workers import Processes, carry_out, workers_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """All that a worker needs.

    Attributes:
        profile: The verb that measures a part, `lampq.profile`, which itself comes here for all parts.
        model: How to read it.
        batch: All samples; what is chosen by them is the same for all parts.
        measurement: What is measured.
        shard: Which of the samples are its own.
        moments: Of the layers' inputs, where they are known (`Coding.moments`).
        state: Where the part's own journal is, on this machine, or None.
    """

    profile: Callable[..., Profile]
    model: Reading
    batch: Batch
    measurement: Measurement
    shard: Shard
    moments: Mapping[str, np.ndarray] | None
    state: Sibling | None


def profile_by_parts(
    profile: Callable[..., Profile],
    model: Model,
    batch: BatchLike,
    measurement: Measurement,
    executor: Executor,
    work: Work,
) -> Profile:
    """The profile that all workers of an executor measure together.

    Raises:
        WorkerError: A part failed twice; names it.
        AdapterError: The model was not read from a file.
        LampqError: See `lampq.profile`.
    """
    inputs, reading = input_batch(model, batch), Reading.of(model)
    count = max(1, min(work.parts or workers_of(executor), inputs.samples))
    shards = [Shard(index=index + 1, count=count) for index in range(count)]
    local = isinstance(executor, Processes)
    parts = [
        Part(
            profile=profile,
            model=reading,
            batch=inputs,
            measurement=measurement,
            shard=shard,
            moments=model.coding.moments,
            state=work.journal.sibling(f"{shard.index}-of-{shard.count}") if local else None,
        )
        for shard in shards
    ]
    tasks = [(f"part {part.shard}", part) for part in parts]
    profiles = carry_out(executor, measure_part, tasks, progress=work.progress)
    return merge(profiles)


def measure_part(part: Part) -> Profile:
    """What one worker does."""
    model = judged(adapters.read(part.model.source, **part.model.options), part.model.heads)
    with _journal(part.state) as journal:
        if part.moments is not None:
            kept = Kept(journal.within("codes"))
            model = model.with_coding(Coding(block=part.measurement.block, moments=part.moments, kept=kept))
        return part.profile(model, part.batch, part.measurement, shard=part.shard, journal=journal)


@contextlib.contextmanager
def _journal(state: Sibling | None) -> Iterator[Journal]:
    if state is None:
        yield NOWHERE
        return
    with state.opened() as journal:
        yield journal
