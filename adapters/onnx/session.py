"""ONNX Runtime sessions: how one is opened, fed and read, and what its failures are called."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lampq.adapters.onnx.container import one_line
from lampq.adapters.onnx.devices import CPU, Provider, missing
from lampq.adapters.onnx.parts import Part
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason
from lampq.core.values.threads import own_threads

_FATAL_ONLY = 4
# On a CPU this fused operator takes longer than the Add and the LayerNormalization that it replaces: up to a
# third of the whole run of a small transformer.
_SLOW_FUSIONS = ("SkipLayerNormFusion",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How sessions are opened.

    Attributes:
        name: The model, for messages.
        providers: Execution providers, best first.
        threads: Threads to work with; None takes `own_threads`.
    """

    name: str
    providers: tuple[Provider, ...] = (CPU,)
    threads: int | None = None

    @property
    def workers(self) -> int:
        """Threads to work with, as a number."""
        if self.threads is not None:
            return max(1, self.threads)
        return own_threads()

    def open_file(self, path: Path, *, threads: int | None = None) -> ort.InferenceSession:
        """A session of a model file, optimized as the runtime's defaults have it: as others will run it.

        Args:
            path: The file.
            threads: Threads of one operator; None takes all.

        Raises:
            AdapterError: The runtime cannot load it.
        """
        return self._open(str(path), self._options(threads or self.workers), ())

    def open_part(
        self, part: Part, *, optimize: bool = True, shared: bool = True, prepack: bool = True
    ) -> ort.InferenceSession:
        """A session of one part of a model, to be run by many threads at once.

        It works in the thread that runs it: samples are divided among threads, which scales better than
        dividing each small product, and does not make threads wait for each other.

        Args:
            part: The part.
            optimize: Let the runtime fuse nodes and fold constants.
            shared: Keep memory for the sessions to come instead of giving it back when this one is closed, and
                leave the other cores to them.
            prepack: Let kernels keep copies of weights in the layout they like: faster if run often, and twice the
                memory.

        Raises:
            AdapterError: The runtime cannot load it.
        """
        options = self._options(1 if shared else self.workers)
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        if shared:
            # One arena for all: each of its own would keep the peak memory of its part for ever.
            _share_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
        else:
            options.enable_cpu_mem_arena = False
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        values = [to_value(array) for array in part.constants.values()]
        if values:
            options.add_external_initializers(list(part.constants), values)
        return self._open(part.model, options, _SLOW_FUSIONS)

    def _options(self, threads: int) -> ort.SessionOptions:
        options = ort.SessionOptions()
        # The runtime logs to the process's own streams; what matters comes back as an exception.
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return options

    def _open(
        self, model: str | bytes, options: ort.SessionOptions, without: Sequence[str]
    ) -> ort.InferenceSession:
        try:
            session = ort.InferenceSession(
                model,
                options,
                providers=list(self.providers),
                disabled_optimizers=list(without),
                # Falling back to other providers is told on standard output, which is the caller's.
                enable_fallback=0,
            )
        # The runtime's exceptions share no base class of their own.
        except Exception as err:
            raise AdapterError(f"{self.name} cannot be loaded by ONNX Runtime: {one_line(err)}") from err
        lacking = missing(self.providers, session.get_providers())
        if lacking:
            raise AdapterError(
                f"{self.name}: {lacking} does not start here, its libraries or device are missing; take --device cpu"
            )
        return session

    def run(
        self,
        session: ort.InferenceSession,
        outputs: Sequence[str],
        feeds: Mapping[str, ort.OrtValue],
        *,
        limit_s: float | None = None,
    ) -> list[ort.OrtValue]:
        """Outputs of a session, without a copy.

        Args:
            session: The session.
            outputs: Names of the outputs.
            feeds: Inputs by name.
            limit_s: Seconds after which the run is ended, between two operators, or None.

        Raises:
            AdapterError: The run fails, or was ended.
        """
        options = ort.RunOptions()
        options.log_severity_level = _FATAL_ONLY
        watch = threading.Timer(limit_s or 0, functools.partial(setattr, options, "terminate", True))
        watch.daemon = True
        try:
            if limit_s is not None:
                watch.start()
            values: list[ort.OrtValue] = session.run_with_ort_values(list(outputs), dict(feeds), options)
        except Exception as err:
            raise AdapterError(f"{self.name} fails in ONNX Runtime: {_all_lines(err)}") from err
        finally:
            watch.cancel()
        return values


def _all_lines(err: Exception) -> str:
    """What a run failed of: below the first line stand the sizes that came, and those that were expected."""
    return reason(ValueError(" ".join(str(err).split())))


def to_value(array: np.ndarray) -> ort.OrtValue:
    """An array as the runtime takes it, shared where it is contiguous.

    Raises:
        AdapterError: It holds texts.
    """
    if array.dtype.kind in "OSU":
        raise AdapterError("inputs that are texts cannot be fed; give the numbers that they are turned into")
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


@functools.cache
def _share_arena() -> None:
    """Register one arena for all sessions of the process that ask for it."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    # Someone else in the process may have done so before, which serves as well.
    with contextlib.suppress(Exception):
        ort.create_and_register_allocator(place, None)
