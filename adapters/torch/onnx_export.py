"""The float model as an ONNX file, to which a plan then applies by fingerprint."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.outputs import to_logits
from lampq.adapters.torch.runtime import Arguments, plain_attention
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


def export_onnx(model: TorchModel, path: Path) -> None:
    """Export a model, with the weights it has now, for any number of samples; and check what was written.

    Args:
        model: The model.
        path: The .onnx file; overwritten.

    Raises:
        AdapterError: The model cannot be exported, or every export computes something else.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as err:
        raise MissingExtraError(str(err.name), "onnx") from err
    path, runtime = Path(path), model.runtime
    example = runtime.make_up_batch(runtime.fixed_batch or _SAMPLES, seed=2)
    module = _plain(model, example)
    failures = []
    for way in _WAYS:
        try:
            with atomic_path(path) as temporary:
                _export(module, example, temporary, way=way, fixed=runtime.fixed_batch is not None)
                _compare(model, temporary, onnxruntime)
        # Exporters raise whatever they stumble over.
        except Exception as err:
            failures.append(reason(err))
        else:
            return
    raise AdapterError(
        f"{runtime.name} cannot be exported to ONNX: {'; then: '.join(dict.fromkeys(failures))}"
    )


class _Logits(torch.nn.Module):
    """A module called the way it wants to be, with its output reduced to logits."""

    def __init__(self, inner: torch.nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.inner = inner
        self._arguments = arguments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        args, kwargs = self._arguments(x)
        return to_logits(self.inner(*args, **kwargs))


def _plain(model: TorchModel, example: torch.Tensor) -> torch.nn.Module:
    """A module from batch to logits with the weights that the model has."""
    module = model.module
    if any(model.tensors[name] is not tensor for name, tensor in model.runtime.weights.items()):
        module = copy.deepcopy(module)
        module.load_state_dict(model.tensors, strict=False)
    args, kwargs = model.runtime.arguments(example)
    with torch.no_grad():
        output = module(*args, **kwargs)
    # Names in the file are those of the module where nothing needs to be wrapped around it.
    bare = len(args) == 1 and not kwargs and isinstance(output, torch.Tensor) and output.dim() == 2
    return module if bare else _Logits(module, model.runtime.arguments)


def _export(module: torch.nn.Module, example: torch.Tensor, path: Path, *, way: str, fixed: bool) -> None:
    options: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    with plain_attention(), _silence(), torch.no_grad():
        if way == "script":
            axes = None if fixed else {"input": {0: "samples"}, "logits": {0: "samples"}}
            options |= {"dynamic_axes": axes, "opset_version": _OPSET, "dynamo": False}
            torch.onnx.export(module, (example,), path, **options)
            return
        shapes = None if fixed else ({0: torch.export.Dim("samples")},)
        program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=way == "compile")
        options |= {"external_data": False, "verbose": False, "dynamo": True}
        torch.onnx.export(program, (example,), path, **options)


def _compare(model: TorchModel, path: Path, onnxruntime: Any) -> None:
    """Logits of the export against those of the model, for another number of other samples than it was made with.

    Raises:
        AdapterError: They differ.
    """
    batch = model.runtime.make_up_batch(model.runtime.fixed_batch or 2 * _SAMPLES - 1, seed=3)
    expected = model.runtime.logits(model.tensors, batch).float().cpu().numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    found = session.run(None, {session.get_inputs()[0].name: batch.cpu().numpy()})[0]
    error = abs(found - expected).max() / max(abs(expected).max(), 1e-12)
    if not error <= _TOLERANCE:
        raise AdapterError(f"the exported model is off by {error:.2g} of the logits' range")


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
