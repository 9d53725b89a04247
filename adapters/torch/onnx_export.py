"""The float model as an ONNX file, to which a plan then applies by fingerprint."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.agreement import disagreement
from lampq.adapters.torch.inputs import longer
from lampq.adapters.torch.kernels import plain_attention
from lampq.adapters.torch.outputs import flatten
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.variant import Varied
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.messages import reason
from lampq.core.values.publishing import atomic_path

_TOLERANCE = 1e-3
# A number of samples that no other size of a model is likely to share: exporters take equal for the same.
_SAMPLES = 3
_OPSET = 17
# Tracing Python, compiling it, and the exporter of old: each manages models that the others do not, and
# each may fix the number of samples without a word.
_WAYS = ("trace", "compile", "script")


def export_onnx(model: Varied, path: Path) -> None:
    """Export a model, with the weights it has now, for any number of samples; and check what was written.

    Args:
        model: The model.
        path: The .onnx file; overwritten.

    Raises:
        AdapterError: The model cannot be exported, every export computes something else, or onnxscript, which PyTorch
            exports by, is not installed.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise MissingExtraError(str(err.name), "onnx") from err
    try:
        import onnxscript  # noqa: F401
    except ImportError as err:
        raise AdapterError(
            f"PyTorch exports models to ONNX by {err.name}, which is not installed; run: pip install {err.name}"
        ) from err
    path = Path(path)
    subject = _subject(model)
    failures = []
    for tokens in (True, False) if subject.tokens else (False,):
        for way in _WAYS:
            try:
                with atomic_path(path) as temporary:
                    _export(subject, temporary, way=way, tokens=tokens)
                    _compare(model, subject, temporary, onnxruntime, tokens=tokens)
            # Exporters raise whatever they stumble over.
            except Exception as err:
                failures.append(reason(err))
            else:
                return
    raise AdapterError(
        f"{model.variant.runtime.name} cannot be exported to ONNX: {'; then: '.join(dict.fromkeys(failures))}"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Subject:
    """What is exported.

    Attributes:
        module: From positional tensors to tensors.
        example: Inputs to trace it with, by name.
        outputs: Names of its outputs.
        fixed: Whether it takes one number of samples alone.
        tokens: Inputs whose second axis, the tokens, may have any length.
        wrapped: Whether the module takes its inputs as one list.
    """

    module: torch.nn.Module
    example: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]
    fixed: bool
    tokens: frozenset[str]
    wrapped: bool

    def axes(self, name: str, *, tokens: bool) -> dict[int, str]:
        """Axes of an input that may have any length."""
        batch = {} if self.fixed else {0: "samples"}
        return batch | ({1: "tokens"} if tokens and name in self.tokens else {})


class _Positional(torch.nn.Module):
    """A module that is given its inputs in order, and returns its tensors in order."""

    def __init__(
        self, inner: torch.nn.Module, signature: Signature, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        # Exporters put everything back into the mode that the outermost module is in.
        self.training = False
        self.inner = inner
        self._signature, self._inputs, self._outputs = signature, tuple(inputs), tuple(outputs)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        args, kwargs = self._signature.arguments(dict(zip(self._inputs, tensors, strict=True)))
        members = flatten(self.inner(*args, **kwargs))
        return tuple(members[name] for name in self._outputs)


def _subject(model: Varied) -> _Subject:
    """The module with the weights that the model has now, and inputs of the shapes of the data."""
    variant, runtime = model.variant, model.variant.runtime
    module = variant.module
    if any(variant.tensors[name] is not tensor for name, tensor in runtime.weights.items()):
        module = copy.deepcopy(module)
        module.load_state_dict(variant.tensors, strict=False)
    example = runtime.samples(runtime.fixed_batch or _SAMPLES, seed=2)
    args, kwargs = runtime.signature.arguments(example)
    with torch.no_grad():
        output = module(*args, **kwargs)
    # Names in the file are those of the module where nothing needs to be wrapped around it.
    bare = len(args) == len(example) and not kwargs and isinstance(output, torch.Tensor)
    outputs = tuple(flatten(output))
    free = [spec.name for spec in model.input_specs if len(spec.shape or ()) == 2 and spec.shape[1] is None]
    return _Subject(
        module=module if bare else _Positional(module, runtime.signature, tuple(example), outputs),
        example=example,
        outputs=outputs,
        fixed=runtime.fixed_batch is not None,
        tokens=frozenset(free) & frozenset(example),
        wrapped=not bare,
    )


def _export(subject: _Subject, path: Path, *, way: str, tokens: bool) -> None:
    inputs = tuple(subject.example.values())
    options: dict[str, Any] = {"input_names": list(subject.example), "output_names": list(subject.outputs)}
    axes = {name: subject.axes(name, tokens=tokens) for name in subject.example}
    with plain_attention(), _silence(), torch.no_grad():
        if way == "script":
            batch = {} if subject.fixed else {0: "samples"}
            named = axes | dict.fromkeys(subject.outputs, batch)
            options |= {"dynamic_axes": named, "opset_version": _OPSET, "dynamo": False}
            torch.onnx.export(subject.module, inputs, path, **options)
            return
        # How many tokens a model takes at most is its own business.
        dims = {"samples": torch.export.Dim("samples"), "tokens": torch.export.Dim.AUTO}
        each = tuple({axis: dims[name] for axis, name in free.items()} for free in axes.values())
        shapes = (each,) if subject.wrapped else each
        program = torch.export.export(
            subject.module, inputs, dynamic_shapes=shapes if any(each) else None, strict=way == "compile"
        )
        options |= {"external_data": False, "verbose": False, "dynamo": True}
        torch.onnx.export(program, inputs, path, **options)


def _compare(model: Varied, subject: _Subject, path: Path, onnxruntime: Any, *, tokens: bool) -> None:
    """Outputs of the export against those of the model, for another number of other samples than it was made with.

    Raises:
        AdapterError: They differ.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    runtime = model.variant.runtime
    inputs = runtime.samples(runtime.fixed_batch or 2 * _SAMPLES - 1, seed=3)
    for batch in (inputs, *itertools.islice(longer(inputs), 1 if tokens else 0)):
        with torch.no_grad():
            expected = runtime.forward(model.variant.tensors, batch)
        wanted = {port.name for port in session.get_inputs()}
        feeds = {name: tensor.cpu().numpy() for name, tensor in batch.items() if name in wanted}
        results = dict(zip(subject.outputs, session.run(None, feeds), strict=True))
        output, error = disagreement({name: expected[name] for name in subject.outputs}, results)
        if not error <= _TOLERANCE:
            raise AdapterError(f"the exported model is off by {error:.2g} of the range of {output}")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporters' running commentary is not the user's concern."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
