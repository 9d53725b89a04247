"""Running TFLite models: LiteRT where it is installed, the older tflite-runtime otherwise."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from lampq.adapters.quiet_import import quiet_import
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.messages import reason
from lampq.core.values.threads import own_threads

_RUNTIMES = ("ai_edge_litert", "tflite_runtime")
# More threads than this gain nothing on models of this kind.
_MOST_THREADS = 4


@cache
def interpreter_module() -> Any:
    """The module of the installed runtime.

    Raises:
        MissingExtraError: None is installed.
        AdapterError: Only tflite-runtime is, and NumPy is too new for it.
    """
    installed = [name for name in _RUNTIMES if importlib.util.find_spec(name) is not None]
    return importlib.import_module(f"{choose(installed, np.__version__)}.interpreter")


@cache
def _announcements() -> Iterator[bool]:
    """True once in a process."""
    return iter([True])


def choose(installed: Sequence[str], numpy_version: str) -> str:
    """The runtime to use of those installed: LiteRT, or its predecessor where NumPy is old enough for it.

    >>> choose(["tflite_runtime"], "1.26.4")
    'tflite_runtime'

    Raises:
        MissingExtraError: None is installed.
        AdapterError: Only tflite-runtime is, and NumPy is too new for it.
    """
    if not installed:
        raise MissingExtraError("ai-edge-litert", "tflite")
    # tflite-runtime was built for NumPy 1: with NumPy 2 it can be imported, but fails when it is used.
    if installed[0] == _RUNTIMES[1] and int(numpy_version.partition(".")[0]) >= 2:
        raise AdapterError(
            f"tflite-runtime was built for NumPy 1 and fails with NumPy {numpy_version}; "
            f"run: pip install ai-edge-litert (or: pip install 'numpy<2')"
        )
    return installed[0]


def threads() -> int:
    """Threads a session uses."""
    return max(1, min(_MOST_THREADS, own_threads()))


class Session:
    """A loaded model, or part of one.

    Args:
        content: The .tflite file.
        delegates: Whether XNNPACK may take over, as it does by default; without it the runtime's own kernels
            run.
        reset: What a run leaves behind that the next must not see: `variables`, the states of recurrent operators,
            `resources`, which only a new interpreter starts with, or nothing.
        free: Whether the stored shapes need not be any that the model can be run with.

    Attributes:
        inputs: Its inputs as the runtime describes them.
        outputs: Its outputs likewise.

    Raises:
        AdapterError: The runtime refuses the model; says why.
    """

    def __init__(
        self, content: bytes, *, delegates: bool = True, reset: str = "", free: bool = False
    ) -> None:
        self._content, self._delegates, self._reset, self._free = content, delegates, reset, free
        self._load()
        self._fresh = True

    def _load(self) -> None:
        module = interpreter_module()
        resolvers = module.OpResolverType
        kind = resolvers.AUTO if self._delegates else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with warnings.catch_warnings(), self._greeting():
                warnings.simplefilter("ignore")
                self._interpreter = module.Interpreter(
                    model_content=self._content, num_threads=threads(), experimental_op_resolver_type=kind
                )
                if not self._free:
                    self._interpreter.allocate_tensors()
            # Names that are no UTF-8 make even these fail.
            self.inputs: list[dict[str, Any]] = self._interpreter.get_input_details()
            self.outputs: list[dict[str, Any]] = self._interpreter.get_output_details()
        except (RuntimeError, ValueError) as err:
            raise AdapterError(f"the runtime refuses the model: {reason(err)}") from err
        self._shapes = None if self._free else [tuple(map(int, detail["shape"])) for detail in self.inputs]

    def _greeting(self) -> contextlib.AbstractContextManager[None]:
        """The runtime announces its delegate on standard error, once in a process; then nothing is diverted."""
        first = self._delegates and next(_announcements(), False)
        return quiet_import() if first else contextlib.nullcontext()

    def _forget(self) -> None:
        """Start from the state of a new model."""
        if self._reset == "variables":
            self._interpreter.reset_all_variables()
        elif self._reset and not self._fresh:
            self._load()
        self._fresh = False

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs of the types the model has; where shapes differ from the last run's, it is
        resized.

        Raises:
            AdapterError: The runtime fails, or the model does not take these shapes.
        """
        self._forget()
        try:
            shapes = [array.shape for array in arrays]
            if shapes != self._shapes:
                for detail, shape in zip(self.inputs, shapes, strict=True):
                    self._interpreter.resize_tensor_input(detail["index"], shape)
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for detail, array in zip(self.inputs, arrays, strict=True):
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(detail["index"]) for detail in self.outputs]
        except (RuntimeError, ValueError) as err:
            raise AdapterError(f"the runtime fails: {reason(err)}") from err
