"""The files behind what a command line names as model, weights or data. Nothing is run, and nothing has to be there."""

from __future__ import annotations

from pathlib import Path

from lampq.adapters.formats import MODEL_FORMATS

_INDEX = ".index.json"
# What preprocessing and tokens are read from.
_BESIDE = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "config.json")


def model_files(source: str | Path) -> tuple[Path, ...]:
    """Files and folders that reading a model reads, external data and what data are prepared by included.

    Args:
        source: What `lampq.read` takes; also a plan or configuration, which is a file of its own.
    """
    path = Path(source)
    if path.is_dir():
        return (path,)
    if not path.exists():
        return function_files(str(source))
    beside = (path.with_name(name) for name in _BESIDE)
    return (path, *(file for file in beside if file.is_file()), *_further_files(path))


def weight_files(source: str | Path) -> tuple[Path, ...]:
    """Files and folders that reading a checkpoint reads: itself, and the shards that an index names."""
    path = Path(source)
    if not path.name.endswith(_INDEX):
        return (path,)
    return (path, *sorted(path.parent.glob(f"*{Path(path.name.removesuffix(_INDEX)).suffix}")))


def data_files(source: str | Path) -> tuple[Path, ...]:
    """A folder of images, a file of arrays or texts, or the file that a function is in."""
    return (Path(source),) if Path(source).exists() else function_files(str(source))


def function_files(source: str) -> tuple[Path, ...]:
    """The file of `file.py:name`; none for `package.module:name`, which is found elsewhere."""
    place, colon, _ = source.rpartition(":")
    return (Path(place),) if colon and place.endswith(".py") else ()


def _further_files(path: Path) -> tuple[Path, ...]:
    """What the format of a file says belongs to it; packages are not asked before a model is read."""
    forms = MODEL_FORMATS.loaded.values()
    return tuple(file for form in forms if form.has_ending(path) for file in form.beside(path))
