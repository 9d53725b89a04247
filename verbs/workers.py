"""Work that others do: an executor, what is given to it, and what becomes of parts whose worker dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from lampq.core.values.errors import LampqError, WorkerError
from lampq.core.values.messages import reason
from lampq.core.values.progress import Progress, quiet

Task = TypeVar("Task")
Result = TypeVar("Result")

# Read by BLAS libraries, PyTorch and `core.values.threads` when a process starts.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_FEWEST = 2


class Processes(Executor):
    """Worker processes of this machine, one thread each; one that dies is replaced, and the others go on.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pools: list[ProcessPoolExecutor | None] = [None] * count
        self._last: list[Future[Any] | None] = [None] * count
        self._given = 0

    def submit(self, function: Callable[..., Result], /, *args: Any, **named: Any) -> Future[Result]:
        """Give a task to a process that is idle, or else to the next in turn."""
        idle = [slot for slot, last in enumerate(self._last) if last is None or last.done()]
        slot = idle[0] if idle else self._given % self.count
        self._given += 1
        last, pool = self._last[slot], self._pools[slot]
        if pool is None or (last is not None and last.done() and _broke(last)):
            pool = self._pools[slot] = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_with_parent
            )
        with _one_thread():
            future = pool.submit(function, *args, **named)
        self._last[slot] = future
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        for pool in filter(None, self._pools):
            pool.shutdown(wait, cancel_futures=cancel_futures)


def workers_of(executor: Executor) -> int:
    """How many tasks an executor does at a time, as far as it tells."""
    told = getattr(executor, "count", None) or getattr(executor, "_max_workers", None)
    client: Any = getattr(executor, "_client", None)
    if told is None and client is not None and hasattr(client, "nthreads"):
        told = len(client.nthreads())
    return told if isinstance(told, int) and told > 0 else _FEWEST


def carry_out(
    executor: Executor,
    function: Callable[[Task], Result],
    tasks: Sequence[tuple[str, Task]],
    *,
    progress: Progress = quiet,
) -> list[Result]:
    """The results of tasks, in order; one whose worker dies is done again once.

    Args:
        executor: Who does them.
        function: What is done, a function of a module.
        tasks: Names, for messages, and what the function takes.
        progress: Told after every task.

    Raises:
        WorkerError: A task failed twice, or the executor takes no more; names the task.
        LampqError: What the function itself refuses.
    """
    results: dict[int, Result] = {}
    failed: set[int] = set()
    waiting: dict[Future[Result], int] = {}

    def give(number: int) -> None:
        name, task = tasks[number]
        try:
            waiting[executor.submit(function, task)] = number
        except Exception as err:
            raise WorkerError(f"{name} cannot be given to a worker ({_why(err)})") from err

    try:
        for number in range(len(tasks)):
            give(number)
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                number = waiting.pop(future)
                try:
                    results[number] = future.result()
                except LampqError:
                    raise
                except Exception as err:
                    if number in failed:
                        name = tasks[number][0]
                        raise WorkerError(f"{name} failed twice, on two workers ({_why(err)})") from err
                    failed.add(number)
                    give(number)
                else:
                    progress("measuring parts", len(results), len(tasks))
    finally:
        for future in waiting:
            future.cancel()
    return [results[number] for number in range(len(tasks))]


def _why(err: Exception) -> str:
    return f"{type(err).__name__}: {reason(err)}"


def _broke(future: Future[Any]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start meanwhile have one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _leave_with_parent() -> None:
    """End this process when the one that started it ends, however that does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait_for([sentinel]), os._exit(1)), daemon=True).start()
