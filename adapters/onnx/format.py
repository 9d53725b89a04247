"""What lampq knows of ONNX before it is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lampq.adapters.autograd import importing
from lampq.adapters.format import NODES, ModelFormat
from lampq.core.values.errors import LampqError
from lampq.core.values.option import ACTIVATION_WIDTHS
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.adapters.onnx.backend import OnnxModel
    from lampq.core.measuring.model import Model
    from lampq.core.values.activation_rule import ActivationRule
    from lampq.core.values.batch import BatchLike
    from lampq.core.values.product import Product


def read(path: str | Path, **options: Any) -> OnnxModel:
    """Read an ONNX file; see `lampq.adapters.onnx.reader.read` for the options.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with ONNX.importing():
        from lampq.adapters.onnx.reader import read as read_onnx
    return read_onnx(path, **options)


def read_stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of an ONNX file; see `lampq.adapters.onnx.stored`.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with ONNX.importing():
        from lampq.adapters.onnx.stored import stored
    return stored(path)


def _external_data(path: Path) -> tuple[Path, ...]:
    # What keeps the model from being read is said when it is.
    with contextlib.suppress(LampqError, ImportError):
        from lampq.adapters.onnx.container import Container

        return tuple(file.path for file in Container(path).files.values())
    return ()


def _reread(model: Model, path: Path) -> Model:
    """With the same inputs fixed, where and on as many threads as the model runs."""
    opened = cast("OnnxModel", model).variant.opened
    runtime = opened.runtime
    return read(path, constants=opened.constants, providers=runtime.providers, threads=runtime.threads)


def _fixed(model: Model) -> Iterable[str]:
    return cast("OnnxModel", model).variant.opened.constants


def _weight_bytes(model: Model) -> int:
    opened = cast("OnnxModel", model).variant.opened
    if opened.requantize:
        return 0  # The numbers in the place of codes are in memory alone.
    weights = {site.weight for site in opened.sites}
    return sum(weight.const_value.nbytes for weight in weights if weight.const_value is not None)


def _products(model: Model) -> tuple[Product, ...]:
    return cast("OnnxModel", model).variant.records.products


def _low_rank(model: Model) -> frozenset[str]:
    from lampq.adapters.onnx.low_rank import takers

    return takers(cast("OnnxModel", model).variant.opened)


def _rounding(model: Model, batch: BatchLike) -> Model:
    with importing():
        from lampq.adapters.onnx.torch_module import as_torch
    return as_torch(cast("OnnxModel", model), batch)


def _simulate(
    model: Model, rules: Mapping[str, ActivationRule], path: Path, batch: BatchLike | None
) -> float:
    from lampq.adapters.onnx.simulate import simulate

    return simulate(cast("OnnxModel", model), rules, path, batch)


ONNX = ModelFormat(
    name="onnx",
    title="ONNX",
    endings=(".onnx",),
    extra="onnx",
    packages={"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxruntime": "onnxruntime"},
    read=read,
    stored=read_stored,
    reread=_reread,
    beside=_external_data,
    fixed=_fixed,
    weight_bytes=_weight_bytes,
    takes_device=True,
    products=_products,
    rounding=_rounding,
    simulate=_simulate,
    addresses=NODES,
    input_bits=ACTIVATION_WIDTHS,
    low_rank=_low_rank,
    # Integer products want one scale per channel.
    blocks_with_inputs=False,
)
