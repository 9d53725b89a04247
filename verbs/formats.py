"""A model in another format than the one it was read in."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lampq import adapters
from lampq.adapters.sources import model_files
from lampq.core.measuring.model import Model
from lampq.core.values import staging
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice
from lampq.core.values.messages import listed
from lampq.core.values.outputs import Output, refuse_clashes

if TYPE_CHECKING:
    from lampq.adapters.torch import TorchModel

FORMATS = ("onnx",)
"""What models can be converted to."""
_ENDINGS = {"onnx": (".onnx",), "tflite": (".tflite", ".lite"), "torch": (".safetensors",)}
MARKER = "config.json"
"""What a folder that a model is written to has in it, if it is one."""


@contextlib.contextmanager
def converted(model: Model, to: str | None) -> Iterator[Model]:
    """The model in another format, as long as the block lasts.

    Args:
        model: The model.
        to: One of `FORMATS`; None, or the format it has, leaves it as it is.

    Raises:
        AdapterError: It cannot be converted, or its export computes something else.
        MissingExtraError: What exports it is not installed.
    """
    if to is None or to == model.format:
        yield model
        return
    if (model.format, to) != ("torch", "onnx"):
        raise AdapterError(f"{model.path.name}: {model.format} models cannot be converted to {to} here")
    from lampq.adapters.torch.onnx_export import export_onnx

    with staging.temporary(Path(tempfile.gettempdir()), directory=True) as folder:
        path = folder / f"{model.path.stem or 'model'}.onnx"
        export_onnx(cast("TorchModel", model), path)
        yield judged_alike(adapters.read(path), model)


def judged(model: Model, choices: Sequence[HeadChoice]) -> Model:
    """The model with some of its outputs judged as a user says; the model itself where nothing is said."""
    return model.with_heads(choices) if choices else model


def judged_alike(model: Model, other: Model) -> Model:
    """The model with its outputs judged as another judges those of the same names."""
    own = {head.name: (head.role, head.weight) for head in model.heads}
    return judged(
        model,
        [
            HeadChoice(name=head.name, role=head.role, weight=head.weight)
            for head in other.heads
            if own.get(head.name, (head.role, head.weight)) != (head.role, head.weight)
        ],
    )


def read_written(model: Model, out: Path) -> Model:
    """The file written from a model, read the way that model was.

    Args:
        model: The model; one made by a factory needs it again, as the file holds no code.
        out: The file.
    """
    source = str(getattr(model, "source", ""))
    if out.suffix == ".safetensors" and ":" in source and not source.startswith("timm:"):
        shapes = cast("TorchModel", model).example_shapes
        return judged_alike(adapters.read(source, weights=out, input_shape=shapes), model)
    return judged_alike(adapters.read(out), model)


def stored_as(model: Model, out: Path) -> Model:
    """The model with the layers alone that `out` can hold packed: a Hugging Face folder has no place for some.

    Raises:
        AdapterError: It has a place for none.
    """
    if getattr(model, "hugging_face", False) and out.suffix == "":
        return cast("Model", cast("TorchModel", model).for_folder())
    return model


def unpacked_note(model: Model, stored: Model) -> tuple[str, ...]:
    """One line about the layers of a model that stay float in what is written, if there are any."""
    if stored is model:
        return ()
    names = {layer.name for layer in stored.layers()}
    left = [layer for layer in model.layers() if layer.name not in names]
    return (
        f"{len(left)} layers of {sum(layer.size for layer in left):,} weights stay float and are not counted, as "
        f"folders cannot pack them ({listed([layer.name for layer in left])}); a .safetensors file can",
    )


def refuse_unwritable(model: Model, out: Path) -> None:
    """Write a Hugging Face folder on trial, before anything is measured, where `out` is one.

    Raises:
        AdapterError: It cannot be read back.
    """
    if getattr(model, "hugging_face", False) and out.suffix == "":
        from lampq.adapters.torch.writing import rehearse_folder

        rehearse_folder(cast("TorchModel", model), out)


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def refuse_model_clashes(model: Model, out: Path, *others: Output, force: bool) -> None:
    """`refuse_clashes` for a quantized model, whose name must say its format: Hugging Face models may be folders.

    Args:
        model: The model that is read.
        out: Where the quantized one goes.
        others: What is written beside it.
        force: Whether outputs may replace what is there.

    Raises:
        OutputExistsError: An output cannot be written, or is the model itself.
        AdapterError: The name says another format than the model's.
    """
    folder = getattr(model, "hugging_face", False) and out.suffix == ""
    endings = _ENDINGS.get(model.format, ())
    if not folder and endings and out.suffix.lower() not in endings:
        convert = ", or pass --to onnx" if model.format == "torch" else ""
        raise AdapterError(f"{out}: this model is written as {endings[0]}; name such a file{convert}")
    written = Output(path=out, marker=MARKER if folder else None)
    refuse_clashes([written, *others], model_files(model.path), force=force)
