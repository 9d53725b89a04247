"""Quantized weights as arrays by name, for formats that are nothing but those (.npz, safetensors, msgpack)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lampq.core.quantizing.formed import Formed, formed_of
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.errors import RecordError
from lampq.core.values.packing import fields, pack, unpack
from lampq.core.values.weight_form import WEIGHT_FORMS

_FORM, _SCALE = "form", "scale"


def to_arrays(name: str, quantized: Quantized | Formed, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A weight of b bits in exactly b bits each: planes of codes, scales, and what they stand for, all `NAME:...`.

    Args:
        name: The weight.
        quantized: Its codes, a row per output channel, or the parts of its form.
        shape: Its shape, output channels first.
    """
    if isinstance(quantized, Formed):
        form = np.array([quantized.bits, *shape])
        parts = {**quantized.parts, f"{_FORM} {quantized.form.name}": form}
        return {f"{name}:{part}": array for part, array in parts.items()}
    parts = {str(place): plane for place, plane in enumerate(pack(quantized.codes, quantized.bits))}
    form = np.array([quantized.bits, quantized.step, quantized.offset, *shape])
    parts |= {_SCALE: quantized.scale, _FORM: form}
    return {f"{name}:{part}": array for part, array in parts.items()}


def weights_of(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by name, float32, in the order of the arrays: those of `to_arrays`, and the others as they are.

    Raises:
        RecordError: Arrays of a quantized weight are missing or do not fit together; names it.
    """
    names = dict.fromkeys(key.partition(":")[0] if ":" in key else key for key in arrays)
    return {
        name: arrays[name].astype(np.float32) if name in arrays else _weight(name, arrays) for name in names
    }


def _weight(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    own = {key.partition(":")[2]: array for key, array in arrays.items() if key.startswith(f"{name}:")}
    form = next((part.removeprefix(f"{_FORM} ") for part in own if part.startswith(f"{_FORM} ")), None)
    if form is not None:
        bits, *shape = own.pop(f"{_FORM} {form}").tolist()
        rows = (shape[0], math.prod(shape[1:]))
        return formed_of(WEIGHT_FORMS.get(form), own, rows, bits).dequantized().reshape(shape)
    try:
        bits, step, offset, *shape = arrays[f"{name}:{_FORM}"].tolist()
        planes = [arrays[f"{name}:{place}"] for place in range(len(fields(bits)))]
        scale = arrays[f"{name}:{_SCALE}"]
        codes = unpack(planes, bits, math.prod(shape)).reshape(len(scale), -1).astype(np.float32)
        return ((step * codes - offset) * scale[:, None]).reshape(shape)
    except (KeyError, TypeError, ValueError) as err:
        raise RecordError(f"weight {name}: its codes, scales and form do not fit together ({err})") from err
