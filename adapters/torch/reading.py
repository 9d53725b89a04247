"""Read PyTorch models: factories with weights, Hugging Face directories, exported programs, timm names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from lampq.adapters.torch import exported, factory, hugging_face, packed, packed_records, rebuild
from lampq.adapters.torch.checkpoint import State, checkpoint_files, load_state
from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.state_dict import fill
from lampq.core.values.errors import AdapterError

_TIMM = "timm:"
_Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]


def read(
    source: str | Path | torch.nn.Module,
    *,
    weights: str | Path | None = None,
    input_shape: _Shapes | None = None,
    kinds: Mapping[str, str] | None = None,
    embeddings: bool = True,
    requantize: bool = False,
    **execution: Any,
) -> TorchModel:
    """Read a PyTorch model. Checkpoints are never executed; a factory is, because the caller names it.

    Args:
        source: `file.py:factory` or `package.module:factory`, a Hugging Face directory, a .pt2 file,
            `timm:NAME`, a file of `write`, or a module.
        weights: Checkpoint for a factory or timm: .safetensors, .pth, .pt, .bin, an index of shards, a file
            of `write`, or a folder of these.
        input_shape: Shape of one sample, or of each input by name, where neither data nor trying tells it.
        kinds: Layer kinds to set, by pattern over layer names.
        embeddings: Whether embedding tables count as layers.
        requantize: Whether weights that are stored quantized count, as the floats that they stand for; those of files
            of `write` do in any case.
        **execution: Fields of `Execution`: `device`, `autocast` (a type or its name), `batch_size`.

    Raises:
        AdapterError: The source cannot be read, the weights do not fit, or there is no such device.
        RecordError: There is no such field.
    """
    how = Execution.of(**execution)
    signature: Signature | None = None
    dtype: torch.dtype | None = None
    fixed: int | None = None
    files: tuple[Path, ...] = ()
    stored: Mapping[str, tuple[int, int | None]] = {}
    text = "module" if isinstance(source, torch.nn.Module) else str(source)
    path = Path(text)
    if weights is not None and (path.suffix in (".pt2", ".safetensors") or path.is_dir()):
        raise AdapterError(f"{text} brings its own weights; leave --weights out")
    if isinstance(source, torch.nn.Module):
        module = source
        if weights is not None:
            files, stored = _load_weights(module, Path(weights))
    elif hugging_face.is_directory(path):
        loaded = hugging_face.load(path, requantize=requantize)
        module, files, stored, dtype = loaded.module, loaded.files, loaded.stored, loaded.dtype
    elif path.is_dir():
        raise AdapterError(f"{path}: a folder without config.json is no Hugging Face model")
    elif path.suffix == ".pt2":
        program = exported.load(path)
        module, files, signature, fixed = program.module, (path,), program.signature, program.batch
        input_shape = program.shapes
    elif path.suffix == ".safetensors":
        file = packed.read(path)
        module, files, stored = rebuild.filled(path, file), (path,), packed_records.stored_bits(file.records)
    elif text.startswith(_TIMM):
        module, files, stored, input_shape = _timm(text, weights, input_shape)
    else:
        module = factory.build(text)
        if weights is not None:
            files, stored = _load_weights(module, Path(weights))
        path = Path(text.rpartition(":")[0])
    runtime = Runtime(
        module,
        name=text,
        input_shape=input_shape,
        signature=signature,
        fixed_batch=fixed,
        execution=how,
        embeddings=embeddings,
    )
    return TorchModel.of(
        runtime,
        Provenance(
            path=Path(weights) if weights else path,
            source=text,
            files=files,
            stored={} if requantize else stored,
            hugging_face=hugging_face.is_directory(path),
            dtype=dtype,
        ),
        kinds=kinds,
        rules=packed.read_rules(Path(weights) if weights else path),
    )


def _load_weights(
    module: torch.nn.Module, path: Path
) -> tuple[tuple[Path, ...], Mapping[str, tuple[int, int | None]]]:
    """Fill a module from a checkpoint; its files, and the widths that it is stored in."""
    state, stored = _state(path)
    fill(module, state, path)
    return checkpoint_files(path), stored


def _state(path: Path) -> tuple[State, Mapping[str, tuple[int, int | None]]]:
    if packed.is_packed(path):
        file = packed.read(path)
        return file.state(), packed_records.stored_bits(file.records)
    return load_state(path), {}


def _timm(
    text: str, weights: str | Path | None, input_shape: _Shapes | None
) -> tuple[torch.nn.Module, tuple[Path, ...], Mapping[str, tuple[int, int | None]], _Shapes]:
    if weights is None:
        raise AdapterError(f"{text} needs --weights: nothing is downloaded")
    name = text.removeprefix(_TIMM)
    module = rebuild.build_timm(name)
    state, stored = _state(Path(weights))
    classes = _classes(module, state)
    if classes is not None and classes != module.num_classes:
        module = rebuild.build_timm(name, classes=classes)
    fill(module, state, Path(weights))
    return (
        module,
        checkpoint_files(Path(weights)),
        stored,
        input_shape or tuple(_configuration(module)["input_size"]),
    )


def _classes(module: torch.nn.Module, state: State) -> int | None:
    """Rows of the checkpoint's classifier, whatever the model was built for."""
    heads = _configuration(module).get("classifier") or ()
    head = heads if isinstance(heads, str) else next(iter(heads), "")
    last = next((t for n, t in state.items() if n == f"{head}.weight" or n.endswith(f".{head}.weight")), None)
    return None if last is None else int(last.shape[0])


def _configuration(module: torch.nn.Module) -> Mapping[str, Any]:
    """What timm says of a model it built."""
    return cast("Mapping[str, Any]", module.pretrained_cfg)
