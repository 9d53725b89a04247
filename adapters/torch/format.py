"""What lampq knows of PyTorch models before PyTorch is imported."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lampq.adapters.format import MODULES, ModelFolder, ModelFormat, ends
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    import torch

    from lampq.adapters.torch.model import TorchModel
    from lampq.core.measuring.model import Model

_TIMM = "timm:"
# What a module that was handed over is called.
_MODULE = "module"
_MARKER = "config.json"
_WRITTEN = ".safetensors"
# Files of weights, for which there is code elsewhere.
_CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt")


def read(path: str | Path | torch.nn.Module, **options: Any) -> TorchModel:
    """Read a PyTorch model; see `lampq.adapters.torch.reading.read` for the options.

    Raises:
        MissingExtraError: torch or safetensors is not installed.
        AdapterError: The model cannot be read.
    """
    with TORCH.importing():
        from lampq.adapters.torch.reading import read as read_torch
    return read_torch(path, **options)


def load_quantized(path: str | Path, model: Any = None, *, int8: bool = False) -> torch.nn.Module:
    """A module with quantized weights; see `lampq.adapters.torch.rebuild.load_quantized`.

    Raises:
        MissingExtraError: torch or safetensors is not installed.
        AdapterError: The file is damaged, or the model is not given or does not fit.
    """
    with TORCH.importing():
        from lampq.adapters.torch.rebuild import load_quantized as load
    return load(path, model, int8=int8)


def _detect(path: Path, head: bytes) -> bool:
    return (path / _MARKER).is_file()


def _is_code(source: str) -> bool:
    """Whether it is `timm:NAME`, `file.py:name` or `package.module:name`."""
    module, colon, factory = source.rpartition(":")
    return source.startswith(_TIMM) or (bool(colon) and factory.isidentifier() and len(module) > 1)


def _takes_shapes(source: str) -> bool:
    """Modules do; an exported program has the shapes it was exported with."""
    return not ends(Path(source), (".pt2",))


def _advice(path: Path) -> str:
    if path.is_dir():
        return f"is a folder without {_MARKER}; name a model file or a Hugging Face folder"
    if ends(path, _CHECKPOINTS):
        return "holds weights only; name a factory and pass the file as --weights"
    return ""


def _stored(source: str | Path) -> Iterable[StoredWeight]:
    from lampq.adapters.torch.stored import stored

    return stored(source)


def _reread(model: Model, path: Path) -> Model:
    """Files hold no code: a model that code made is made by it again, and a module is copied. Folders and timm models
    name theirs. It runs where and as exactly as the model did.
    """
    variant = _torch(model).variant
    source, runtime = variant.provenance.source, variant.runtime
    how = {"device": str(runtime.device), "autocast": runtime.autocast}
    if ends(path, (_WRITTEN,)) and source == _MODULE:
        # The caller's keeps its weights.
        return read(copy.deepcopy(runtime.module), weights=path, input_shape=runtime.example_shapes, **how)
    if ends(path, (_WRITTEN,)) and ":" in source and not source.startswith(_TIMM):
        return read(source, weights=path, input_shape=runtime.example_shapes, **how)
    return read(path, **how)


def _export_onnx(model: Model, path: Path) -> None:
    from lampq.adapters.torch.onnx_export import export_onnx

    export_onnx(_torch(model), path)


def _fits_folder(model: Model, path: Path) -> bool:
    return _torch(model).variant.provenance.hugging_face and path.suffix == ""


def _packed(model: Model) -> Model:
    return cast("Model", _torch(model).for_folder())


def _filed(model: Model) -> Model:
    return cast("Model", _torch(model).for_file())


def _rehearse(model: Model, path: Path) -> None:
    from lampq.adapters.torch.writing import rehearse_folder

    rehearse_folder(_torch(model), path)


def _random_weights(model: Model) -> bool:
    return model.path.suffix == ".py"


def _torch(model: Model) -> TorchModel:
    return cast("TorchModel", model)


TORCH = ModelFormat(
    name="torch",
    title="PyTorch",
    endings=(".pt2", _WRITTEN),
    written=(_WRITTEN,),
    extra="torch",
    packages={"torch": "torch", "safetensors": "safetensors"},
    read=read,
    detect=_detect,
    is_code=_is_code,
    takes_shapes=_takes_shapes,
    takes_device=True,
    takes_autocast=True,
    advice=_advice,
    stored=_stored,
    reread=_reread,
    exports={"onnx": _export_onnx},
    folder=ModelFolder(marker=_MARKER, fits=_fits_folder, packed=_packed, filed=_filed, rehearse=_rehearse),
    addresses=MODULES,
    random_weights=_random_weights,
)
