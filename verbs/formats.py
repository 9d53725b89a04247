"""A model in another format than the one it was read in."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lampq import adapters
from lampq.adapters.format import ModelFolder, ends
from lampq.adapters.sources import model_files
from lampq.core.measuring.model import Model
from lampq.core.values import staging
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice
from lampq.core.values.messages import listed
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.side_files import SideNames

FORMATS = tuple(dict.fromkeys(to for form in adapters.MODEL_FORMATS.loaded.values() for to in form.exports))
"""What models can be converted to."""


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
    export = adapters.format_named(model.format).exports.get(to)
    if export is None:
        raise AdapterError(f"{model.path.name}: {model.format} models cannot be converted to {to} here")
    ending = adapters.format_named(to).output_endings[0]
    with staging.temporary(Path(tempfile.gettempdir()), directory=True) as folder:
        path = folder / f"{model.path.stem or 'model'}{ending}"
        export(model, path)
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
    reread = adapters.format_named(model.format).reread
    return judged_alike(adapters.read(out) if reread is None else reread(model, out), model)


def stored_as(model: Model, out: Path) -> Model:
    """The model with the layers alone that `out` can hold packed, and their bytes there.

    A Hugging Face folder has no place for some layers, and another form than a file.

    Raises:
        AdapterError: It has a place for none.
    """
    folder = adapters.format_named(model.format).folder
    if folder is None:
        return model
    return folder.packed(model) if folder.fits(model, out) else folder.filed(model)


def unpacked_note(model: Model, stored: Model) -> tuple[str, ...]:
    """One line about the layers of a model that stay float in what is written, if there are any."""
    if stored is model:
        return ()
    names = {layer.name for layer in stored.layers()}
    left = [layer for layer in model.layers() if layer.name not in names]
    if not left:
        return ()
    return (
        f"{len(left)} layers of {sum(layer.size for layer in left):,} weights stay float and are not counted, as "
        f"folders cannot pack them ({listed([layer.name for layer in left])}); a "
        f"{adapters.format_named(model.format).output_endings[0]} file can",
    )


def refuse_unwritable(model: Model, out: Path) -> None:
    """Write a folder on trial, before anything is measured, where `out` is one.

    Raises:
        AdapterError: It cannot be read back.
    """
    folder = _folder(model, out)
    if folder is not None:
        folder.rehearse(model, out)


def _folder(model: Model, out: Path) -> ModelFolder | None:
    """How the model is written as a folder, where `out` is one."""
    folder = adapters.format_named(model.format).folder
    return folder if folder is not None and folder.fits(model, out) else None


def folder_marker(path: Path) -> str | None:
    """What the folder of a model of any format has in it: of several formats, the one whose model is there."""
    folders = [form.folder for form in adapters.MODEL_FORMATS.loaded.values() if form.folder is not None]
    markers = [folder.marker for folder in folders]
    return next((marker for marker in markers if (path / marker).is_file()), next(iter(markers), None))


def size_bytes(path: Path) -> int:
    """Bytes of a file with the data beside it, or of all files in a folder."""
    files: Iterable[Path]
    if path.is_dir():
        files = path.rglob("*")
    else:
        names = SideNames(stem=path.name, ending=".data")
        files = (path, *(file for file in path.parent.iterdir() if names.digits(file.name)))
    return sum(file.stat().st_size for file in files if file.is_file())


def refuse_model_clashes(model: Model, out: Path, *beside: Output, force: bool) -> None:
    """`refuse_clashes` for a quantized model, whose name must say its format: Hugging Face models may be folders.

    Args:
        model: The model that is read.
        out: Where the quantized one goes.
        beside: What is written beside it.
        force: Whether outputs may replace what is there.

    Raises:
        OutputExistsError: An output cannot be written, or is the model itself.
        AdapterError: The name says another format than the model's.
    """
    form, folder = adapters.format_named(model.format), _folder(model, out)
    endings = form.output_endings
    if folder is None and endings and not ends(out, endings):
        others = "".join(f", or pass --to {name}" for name in form.exports)
        raise AdapterError(f"{out}: this model is written as {endings[0]}; name such a file{others}")
    written = Output(path=out, marker=None if folder is None else folder.marker)
    refuse_clashes([written, *beside], model_files(model.path), force=force)
