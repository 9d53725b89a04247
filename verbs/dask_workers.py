"""The workers of a Dask cluster as an executor."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

from lampq.core.values.errors import MissingExtraError, WorkerError
from lampq.core.values.messages import reason

_PATIENCE_S = 10


@contextlib.contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """An executor of the workers that a scheduler has.

    Args:
        address: Of the scheduler, such as `tcp://host:8786`.

    Raises:
        MissingExtraError: Dask is not installed.
        WorkerError: No scheduler answers there, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError as err:
        raise MissingExtraError("distributed", "dask") from err
    # What it has to say of lost connections is said here, in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as err:
        raise WorkerError(
            f"no Dask scheduler can be reached at {address} ({reason(err)}); start one with `dask scheduler`"
        ) from err
    with client:
        if not client.nthreads():
            raise WorkerError(
                f"the Dask scheduler at {address} has no workers; start some with `dask worker`"
            )
        with client.get_executor() as executor:
            yield executor
