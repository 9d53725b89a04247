"""All model formats, by name and by what their files look like.

Those of other packages are entry points of the group `lampq.formats`, asked where no format of lampq knows a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from lampq.adapters.format import ModelFormat
from lampq.adapters.onnx.format import ONNX
from lampq.adapters.tflite.format import TFLITE
from lampq.adapters.torch.format import TORCH
from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError
from lampq.core.values.registry import Registry

MODEL_FORMATS = Registry(
    (ONNX, TFLITE, TORCH), what="model format", group="lampq.formats", error=AdapterError
)
# Enough of a file to tell formats by.
_HEAD_BYTES = 64


def register(form: ModelFormat) -> None:
    """Make a format known while the program runs.

    Raises:
        AdapterError: It is no format, or lampq has one of its name.
    """
    MODEL_FORMATS.add(form)


def format_named(name: str) -> ModelFormat:
    """The format of models that say `name`; where nothing describes it, one that has a name alone."""
    try:
        return MODEL_FORMATS.get(name)
    except AdapterError:
        # A model can be made without a record of its format; only reading by name or ending takes one.
        return ModelFormat(name=name, read=_unreadable)


def format_of(source: str | Path) -> ModelFormat:
    """The format of a model file, folder or other source: by its name, else by its first bytes.

    Raises:
        AdapterError: There is no such file, nothing tells its format, or several formats say it is theirs.
    """
    loaded = tuple(MODEL_FORMATS.loaded.values())
    form = _claimed(loaded, source)
    if form is not None:
        return form
    announced, failures = MODEL_FORMATS.announced()
    form = _claimed(announced, source)
    if form is not None:
        return form
    raise AdapterError("; ".join([_unknown((*loaded, *announced), Path(source)), *failures]))


def _claimed(forms: Iterable[ModelFormat], source: str | Path) -> ModelFormat | None:
    """The format among some that says a source is of it.

    Raises:
        AdapterError: Several do, it names no file, or cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        claims = [form for form in forms if form.detect(path, b"")]
    else:
        claims = [form for form in forms if form.has_ending(path)]
        if not path.exists():
            if claims:
                raise AdapterError(f"{path}: no such file")
            claims = [form for form in forms if form.is_code(str(source))]
        elif not claims:
            head = _head(path)
            claims = [form for form in forms if form.detect(path, head)]
    if len(claims) > 1:
        raise AdapterError(
            f"{path} is claimed by several formats: {', '.join(form.name for form in claims)}; keep one of them"
        )
    return claims[0] if claims else None


def _unknown(forms: Iterable[ModelFormat], path: Path) -> str:
    """Why a source is of no format."""
    if not path.exists():
        return f"{path}: no such file"
    advice = next(filter(None, (form.advice(path) for form in forms)), "")
    if advice:
        return f"{path} {advice}"
    endings = ", ".join(ending for form in forms for ending in form.endings)
    return f"{path} is of no known format; expected {endings} or a Hugging Face folder"


def _head(path: Path) -> bytes:
    try:
        with open_regular(path) as handle:
            return handle.read(_HEAD_BYTES)
    except OSError as err:
        raise AdapterError(f"{path} cannot be read: {err.strerror}") from err


def _unreadable(source: str | Path, **options: object) -> NoReturn:
    raise AdapterError(f"{source}: nothing here reads this format")
