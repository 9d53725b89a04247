"""Arrays by name, held against the inputs of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from lampq.adapters.data.array_reader import ArrayReader
from lampq.adapters.data.arrays import prepare
from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.messages import listed

LONE, LABELS, CLASSES = "x", "y", "classes"
"""What data call a model's only input, the labels, and the names of these."""


def takes(specs: Sequence[InputSpec]) -> str:
    """The inputs of a model, for messages."""
    return f"the model's inputs are {listed([str(spec) for spec in specs], most=8)}"


def match_inputs(
    arrays: Mapping[str, np.ndarray], specs: Sequence[InputSpec], source: str
) -> dict[str, np.ndarray]:
    """The array of each input by the input's name; a lone input may be called `x` in the data.

    Raises:
        AdapterError: An input has no array, or an array no input.
    """
    check_names(list(arrays), specs, source)
    return {
        spec.name: arrays[spec.name if spec.name in arrays else LONE] for spec in fed(specs, list(arrays))
    }


def fed(specs: Sequence[InputSpec], names: Sequence[str]) -> list[InputSpec]:
    """The inputs that data with arrays of these names have to fill: without optional ones that they leave out."""
    return [spec for spec in specs if not spec.optional or spec.name in names]


def check_names(names: Sequence[str], specs: Sequence[InputSpec], source: str) -> None:
    """Hold the names of arrays against those of inputs, each of which takes one.

    Raises:
        AdapterError: An input has no array, or an array no input; lists the inputs.
    """
    inputs = [spec.name for spec in fed(specs, names)]
    known = [*inputs, LONE] if len(inputs) == 1 and inputs[0] not in names else inputs
    unknown = [name for name in names if name not in known]
    missing = [name for name in inputs if name not in names]
    holds = listed(names, most=8) or "nothing"
    if len(inputs) == 1 and missing and LONE not in names:
        raise AdapterError(f"data {source}: holds {holds}; save the samples as x (and labels as y)")
    if len(inputs) > 1 and missing:
        raise AdapterError(f"data {source}: holds {holds} but no {listed(missing)}; {takes(specs)}")
    if unknown:
        raise AdapterError(f"data {source}: no input is called {listed(unknown)}; {takes(specs)}")


def prepare_inputs(
    arrays: Mapping[str, np.ndarray], specs: Sequence[InputSpec], preprocess: Preprocess, source: str
) -> tuple[dict[str, np.ndarray], dict[str, ImageTransform], Preprocess | None]:
    """`prepare` for every input, and what inputs have to have in common.

    Args:
        arrays: By name of the input, as `match_inputs` gives them.
        specs: The inputs.
        preprocess: For uint8 images.
        source: Of the data, for messages.

    Returns:
        Arrays, transforms of those that are images, and the complete record of the preprocessing, if there is one.

    Raises:
        AdapterError: An array does not fit its input, numbers of samples differ, or a mask has another shape than
            what it masks.
    """
    ready, transforms, record = {}, {}, None
    filled = fed(specs, list(arrays))
    for spec in filled:
        called = LONE if len(filled) == 1 else spec.name
        array, transform, complete = prepare(arrays[spec.name], spec, preprocess, source, called)
        ready[spec.name] = array
        if transform is not None:
            transforms[spec.name], record = transform, complete
    _check_counts(ready, source)
    _check_masks(ready, source)
    return ready, transforms, record


def array_reader(
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    chosen: np.ndarray,
    transforms: Mapping[str, ImageTransform],
    threads: int | None,
    source: str,
) -> ArrayReader:
    """A reader of chosen samples; `labels` are those of all samples."""
    return ArrayReader(
        inputs=inputs,
        labels=None if labels is None else labels[chosen],
        chosen=chosen,
        transforms=transforms,
        threads=threads or min(8, os.cpu_count() or 1),
        source=source,
    )


def _check_counts(arrays: Mapping[str, np.ndarray], source: str) -> None:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        each = listed([f"{name} {count}" for name, count in counts.items()], most=8)
        raise AdapterError(f"data {source}: inputs have different numbers of samples ({each})")


def _check_masks(arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Refuse masks of texts that are longer or shorter than the texts.

    A mask belongs to the input that is called alike (`decoder_attention_mask`, `decoder_input_ids`), or else to the
    only other one that has integers along one axis.
    """
    texts = [n for n, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "iu" and "mask" not in n.lower()]
    for name, mask in arrays.items():
        stem, called_so, _ = name.lower().partition("attention_mask")
        partners = (
            [text for text in texts if text.lower().startswith(f"{stem}input_ids")] if called_so else []
        )
        if "mask" not in name.lower() or mask.ndim != 2 or len(partners or texts) != 1:
            continue
        partner = (partners or texts)[0]
        if arrays[partner].shape != mask.shape:
            raise AdapterError(
                f"data {source}: {name} has shape {mask.shape}, {partner} {arrays[partner].shape}; "
                f"a mask says of every position whether it counts"
            )
