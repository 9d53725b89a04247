"""The float model as an ONNX file, to which a plan then applies by fingerprint."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.runtime import plain_attention
from lampq.core.errors import AdapterError, MissingExtraError
from lampq.core.files import atomic_path

_TOLERANCE = 1e-3


def export_onnx(model: TorchModel, path: Path) -> None:
    """Export a model with any number of samples, and check that it runs with another number than it was
    traced with.

    Args:
        model: The model, with the weights it has now.
        path: The .onnx file; overwritten.

    Raises:
        AdapterError: The model cannot be exported, or the export computes something else.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as err:
        raise MissingExtraError(str(err.name), "onnx") from err
    path = Path(path)
    example = model.runtime.example
    wrapped = _Logits(model).eval()
    failures = []
    with atomic_path(path) as temporary:
        # The newer exporter may fix the number of samples without a word; the older one then helps out.
        for dynamo in (True, False):
            try:
                _export(
                    wrapped, example, temporary, dynamo=dynamo, fixed=model.runtime.fixed_batch is not None
                )
                _compare(model, temporary, onnxruntime)
            # Exporters raise whatever they stumble over.
            except Exception as err:
                failures.append((str(err).strip().splitlines() or [type(err).__name__])[0])
                continue
            return
        raise AdapterError(f"{model.runtime.name} cannot be exported to ONNX: {'; then: '.join(failures)}")


class _Logits(torch.nn.Module):
    """The module with its output reduced to logits and its weights as the model has them."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.inner = model.module
        self._model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from lampq.adapters.torch.outputs import to_logits

        args, kwargs = self._model.runtime.arguments(x)
        return to_logits(self.inner(*args, **kwargs))


def _export(module: torch.nn.Module, example: torch.Tensor, path: Path, *, dynamo: bool, fixed: bool) -> None:
    options: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    if dynamo:
        shapes = None if fixed else ({0: torch.export.Dim("samples")},)
        options |= {"dynamic_shapes": shapes, "external_data": False, "verbose": False}
    else:
        axes = None if fixed else {"input": {0: "samples"}, "logits": {0: "samples"}}
        options |= {"dynamic_axes": axes, "opset_version": 17}
    with plain_attention(), _silence(), torch.no_grad():
        torch.onnx.export(module, (example,), path, dynamo=dynamo, **options)


def _compare(model: TorchModel, path: Path, onnxruntime: Any) -> None:
    """Logits of the export against those of the model, for more samples than it was traced with.

    Raises:
        AdapterError: They differ.
    """
    count = model.runtime.fixed_batch or 3
    batch = torch.cat([model.runtime.example] * 3)[:count]
    expected = model.runtime.logits(model.tensors, batch).float().cpu().numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: batch.cpu().numpy()})[0]
    error = abs(found - expected).max() / max(abs(expected).max(), 1e-12)
    if not error <= _TOLERANCE:
        raise AdapterError(f"the exported model is off by {error:.2g} of the logits' range")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporters' running commentary is not the user's concern."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
