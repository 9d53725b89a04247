"""A data set from what names it: a folder, a file, a function, or arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data import texts as text_files
from lampq.adapters.data.arrays import check_labels
from lampq.adapters.data.dataset import Dataset, Reader
from lampq.adapters.data.folder import scan_folder
from lampq.adapters.data.function import load_function
from lampq.adapters.data.function_reader import FunctionReader
from lampq.adapters.data.image_reader import ImageReader, image_runs
from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.named_arrays import (
    CLASSES,
    LABELS,
    LONE,
    array_reader,
    check_names,
    match_inputs,
    prepare_inputs,
    takes,
)
from lampq.adapters.data.npz import class_names as names_of
from lampq.adapters.data.npz import load_npz
from lampq.adapters.data.pairs import PairReader
from lampq.adapters.data.preprocess import Preprocess
from lampq.adapters.data.rows import SUFFIXES as TABLES
from lampq.adapters.data.table import has_images, metadata_of, read_table
from lampq.adapters.data.text_reader import read_tokens, text_inputs
from lampq.adapters.data.tokenizer import TextEncoder, find_encoder
from lampq.adapters.data.wanted import Wanted, image_input
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec


def read_data(
    source: str | Path,
    *,
    input_specs: Sequence[InputSpec] | None = None,
    input_spec: InputSpec | None = None,
    constants: Mapping[str, Any] | None = None,
    model: str | Path | None = None,
    preprocess: Preprocess | str | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Open a folder of images, an .npz file, a file of texts, or a function that yields batches.

    A folder's sub-folders are its classes, labelled in the order of their sorted names; a flat folder has no labels.
    Where neither the preprocessing nor the model says a size, images keep theirs and are grouped by it. An .npz
    holds an array for each input under its name (`x` for a lone one) and may hold labels `y` and names `classes`.
    Images, and arrays of type uint8, are preprocessed; arrays of another type are taken as they are. A .txt has a
    text a line; a .jsonl or .csv has a field or column `text` and may have a `label`. A function returns an iterable
    of x or of (x, y), with x an array or a dict of arrays by name. Images may also be named by a table (.csv, .jsonl or
    .parquet) with a column `image` or `file_name`, or held by a .parquet, and have a `text` and a `label`; so they do
    in a folder with a metadata.csv, .jsonl or .parquet.

    Args:
        source: A folder, `file.npz`, `file.txt`, `file.jsonl`, `file.csv`, `file.parquet`, `package.module:function` or
            `path/to/file.py:function`.
        input_specs: The model's inputs; they decide what the preprocessing leaves open.
        input_spec: The model's input, where it has one.
        constants: Inputs that are the same for every sample: numbers or arrays by name.
        model: Where the model was read from; the tokenizer of texts is looked for beside it.
        preprocess: A record or the name of a preset; None only scales to [0, 1].
        samples: Take this many: balanced over the classes (see `choose_samples`), or the first ones of a function,
            which decides its own order.
        seed: Of that choice.

    Raises:
        AdapterError: The source is missing, empty or malformed, or does not fit the model's inputs.
        MissingExtraError: Images are to be read or resized, or texts to be encoded, and what does it is not installed.
    """
    text, path = str(source), Path(source)
    wanted = Wanted.of(
        text,
        input_specs,
        input_spec,
        constants,
        preprocess,
        samples=samples,
        seed=seed,
        threads=None,
        model=None if model is None else Path(model),
    )
    return _open(path, text, wanted)


def from_arrays(
    inputs: np.ndarray | Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    input_specs: Sequence[InputSpec] | None = None,
    input_spec: InputSpec | None = None,
    constants: Mapping[str, Any] | None = None,
    preprocess: Preprocess | str | None = None,
    class_names: tuple[str, ...] | None = None,
    source: str = "arrays",
) -> Dataset:
    """Data from arrays in memory; otherwise as `read_data`.

    Args:
        inputs: Samples of the model's only input, or of each input by name; uint8 images are preprocessed.
        labels: Class indices, shape (samples,), or None.
        input_specs: See `read_data`.
        input_spec: See `read_data`.
        constants: See `read_data`.
        preprocess: See `read_data`.
        class_names: Name of each label.
        source: Name of the data, for messages and provenance.

    Raises:
        AdapterError: The arrays are empty or do not fit the model's inputs or each other.
        MissingExtraError: Images are to be resized and Pillow is not installed.
    """
    choices = {"samples": None, "seed": 0, "threads": None, "model": None}
    wanted = Wanted.of(source, input_specs, input_spec, constants, preprocess, **choices)
    named = inputs if isinstance(inputs, Mapping) else {wanted.specs[0].name: inputs}
    return _arrays(named, labels, class_names, source, wanted)


def _open(path: Path, text: str, wanted: Wanted) -> Dataset:
    if path.is_dir():
        metadata = metadata_of(path)
        return _folder(path, text, wanted) if metadata is None else _table(metadata, text, wanted)
    if path.suffix.lower() == ".npz":
        return _npz(path, text, wanted)
    pictured = any(len(spec.shape) == 4 or spec.layout is not None for spec in wanted.specs)
    if pictured and path.suffix.lower() in TABLES and path.is_file() and has_images(path):
        return _table(path, text, wanted)
    if path.suffix.lower() in text_files.SUFFIXES:
        return _texts(path, text, wanted)
    if text.rpartition(":")[2].replace(".", "_").isidentifier() and ":" in text:
        return _function(text, wanted)
    problem = "no kind of data" if path.exists() else "no such folder or file"
    raise AdapterError(
        f"data {text}: {problem}; give a folder of images, an .npz, a file of texts, a table or module:function"
    )


def _npz(path: Path, text: str, wanted: Wanted) -> Dataset:
    names = {spec.name for spec in wanted.specs}
    # What no input takes is refused by its name, unread.
    arrays, held = load_npz(path, {*names, LONE, LABELS, CLASSES})
    # An input may be called `y` or `classes` too, and then it is that.
    rest = {name: arrays.pop(name, None) for name in (LABELS, CLASSES) if name not in names}
    unread = [name for name in held if name not in arrays and rest.get(name) is None]
    check_names([*arrays, *unread], wanted.specs, text)
    return _arrays(arrays, rest.get(LABELS), names_of(rest.get(CLASSES), text), text, wanted)


def _arrays(
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    class_names: tuple[str, ...] | None,
    source: str,
    wanted: Wanted,
) -> Dataset:
    matched = match_inputs(arrays, wanted.specs, source)
    inputs, transforms, record = prepare_inputs(matched, wanted.specs, wanted.preprocess, source)
    count = len(next(iter(inputs.values())))
    if not count:
        raise AdapterError(f"data {source}: {next(iter(arrays))} holds no samples")
    if labels is not None:
        labels = check_labels(labels, count, source, classes=len(class_names) if class_names else None)
    elif class_names:
        raise AdapterError(f"data {source}: names of classes but no labels; save labels as y")
    chosen = wanted.choose(count, labels)
    return Dataset(
        source=source,
        kind="arrays",
        class_names=class_names,
        preprocess=record,
        available=count,
        seed=wanted.chosen_by,
        reader=array_reader(inputs, labels, chosen, transforms, wanted.threads, source),
        constants=wanted.constants,
    )


def _folder(path: Path, text: str, wanted: Wanted) -> Dataset:
    spec = image_input(wanted.specs)
    others = [other.name for other in wanted.specs if other is not spec]
    if spec is None or others:
        fix = f"fix {', '.join(others)} with --input NAME=VALUE" if spec else "give an .npz of named arrays"
        raise AdapterError(f"data {text}: images go into one input; {takes(wanted.specs)}: {fix}")
    index = scan_folder(path)
    chosen = wanted.choose(len(index.names), index.labels, index.names.__getitem__)
    order, runs, record = image_runs(path, [index.names[i] for i in chosen], wanted.preprocess, spec)
    chosen = chosen[order]
    reader = ImageReader(
        root=path,
        names=[index.names[i] for i in chosen],
        labels=None if index.labels is None else index.labels[chosen],
        input_name=spec.name,
        runs=runs,
        threads=wanted.threads,
    )
    return Dataset(
        source=text,
        kind="folder",
        class_names=index.class_names,
        preprocess=record,
        available=len(index.names),
        seed=wanted.chosen_by,
        reader=reader,
        constants=wanted.constants,
    )


def _table(path: Path, text: str, wanted: Wanted) -> Dataset:
    """Images of a table; with texts where the model takes more than images."""
    table = read_table(path)
    images = [spec for spec in wanted.specs if spec.layout is not None or len(spec.shape) == 4]
    spec = images[0] if len(images) == 1 else image_input(wanted.specs)
    if spec is None:
        raise AdapterError(f"data {text}: images go into one input; {takes(wanted.specs)}")
    others = [other for other in wanted.specs if other is not spec]
    chosen = wanted.choose(len(table.names), table.labels, table.names.__getitem__)
    names = [table.names[i] for i in chosen]
    order, runs, record = image_runs(path.parent, names, wanted.preprocess, spec, table.held)
    labels = None if table.labels is None else table.labels[chosen]

    def images_of(places: np.ndarray, runs: Sequence[tuple[int, ImageTransform]]) -> ImageReader:
        return ImageReader(
            root=path.parent,
            names=[names[i] for i in places],
            labels=None if labels is None else labels[places],
            input_name=spec.name,
            runs=runs,
            threads=wanted.threads,
            held=table.held,
        )

    reader: Reader = images_of(order, runs)
    if others:
        if len(runs) > 1:
            raise AdapterError(f"data {text}: images keep their sizes; give one to use (--image-size)")
        if table.texts is None:
            raise AdapterError(f"data {text}: rows hold no text, and {takes(wanted.specs)}")
        texts = read_tokens([table.texts[i] for i in chosen], labels, others, _encoder(text, wanted), text)
        parts = [(images_of(part.order, [(part.count(), runs[0][1])]), part) for part in texts.by_length()]
        reader = PairReader(parts=parts, labels=texts.labels)
    return Dataset(
        source=text,
        kind="pairs" if others else "folder",
        class_names=table.class_names,
        preprocess=record,
        available=len(table.names),
        seed=wanted.chosen_by,
        reader=reader,
        constants=wanted.constants,
    )


def _encoder(text: str, wanted: Wanted) -> TextEncoder:
    """The tokenizer beside the model.

    Raises:
        AdapterError: There is none, or it is not known where the model is.
    """
    if wanted.model is None:
        raise AdapterError(
            f"data {text}: texts need the model's tokenizer; say where the model is (model=...)"
        )
    return find_encoder(wanted.model)


def _texts(path: Path, text: str, wanted: Wanted) -> Dataset:
    content = text_files.read_texts(path)
    text_inputs(wanted.specs, text)
    encoder = _encoder(text, wanted)
    chosen = wanted.choose(len(content.texts), content.labels)
    reader = read_tokens(
        [content.texts[i] for i in chosen],
        None if content.labels is None else content.labels[chosen],
        wanted.specs,
        encoder,
        text,
    )
    return Dataset(
        source=text,
        kind="texts",
        class_names=content.class_names,
        preprocess=None,
        available=len(content.texts),
        seed=wanted.chosen_by,
        reader=reader,
        constants=wanted.constants,
    )


def _function(text: str, wanted: Wanted) -> Dataset:
    if wanted.samples is not None and wanted.samples < 1:
        raise AdapterError(f"samples={wanted.samples}: at least 1 is needed")
    reader = FunctionReader(
        function=load_function(text),
        source=text,
        specs=wanted.specs,
        preprocess=wanted.preprocess,
        limit=wanted.samples,
        threads=wanted.threads,
    )
    return Dataset(
        source=text,
        kind="function",
        class_names=None,
        preprocess=None,
        available=None,
        seed=None,
        reader=reader,
        constants=wanted.constants,
    )
