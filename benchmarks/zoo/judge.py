"""A judge of its own: the stock runtime runs the files, and NumPy says how far outputs moved. No code of lampq.

Nats of every output: KL of the softmax, or of a Bernoulli variable for each label, averaged over positions; of values
half the mean squared error in units of a channel's spread over the samples, which is the KL of two Gaussians; of
directions the same of the unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from zoo.subject import Arrays, Meaning, Subject

# A channel that hardly varies counts as if it varied by this part of the widest.
_FLOOR = 0.02
_TINY = 1e-30


def outputs_of(path: Path, inputs: Arrays, batch: int) -> dict[str, np.ndarray]:
    """All outputs of a file as its own runtime gives them, samples first."""
    run = {".onnx": _onnx, ".tflite": _tflite}[Path(path).suffix](path)
    samples = len(next(iter(inputs.values())))
    pieces = [
        run({name: array[start : start + batch] for name, array in inputs.items()})
        for start in range(0, samples, batch)
    ]
    return {name: np.concatenate([_rows(piece[name], batch) for piece in pieces]) for name in pieces[0]}


def _rows(output: np.ndarray, batch: int) -> np.ndarray:
    """One row a sample; a model of one sample may have no axis for it."""
    return output[None] if batch == 1 and len(output) != 1 else output


def _onnx(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


def _tflite(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        (array,) = feeds.values()
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(array, dtype=entry["dtype"]))
        interpreter.invoke()
        return {
            detail["name"]: interpreter.get_tensor(detail["index"])
            for detail in interpreter.get_output_details()
        }

    return run


def nats(subject: Subject, expected: Arrays, actual: Arrays) -> dict[str, float]:
    """How far each output moved on the validation samples, by name."""
    return {
        name: float(_nats(meaning, expected[name], actual[name], subject.validation))
        for name, meaning in subject.outputs.items()
    }


def _nats(meaning: Meaning, expected: np.ndarray, actual: np.ndarray, inputs: Arrays) -> float:
    one, other = (_as_rows(array, meaning.axis) for array in (expected, actual))
    weight = np.ones(one.shape[:2])
    if meaning.mask is not None and one.shape[1] > 1:
        weight = inputs[meaning.mask].astype(np.float64)
    damage = _ROLES[meaning.role](one, other, meaning.activated, weight)
    # The mean over samples of the mean over the positions that count.
    return float(((damage * weight).sum(axis=1) / weight.sum(axis=1)).mean())


def _as_rows(array: np.ndarray, axis: int) -> np.ndarray:
    """(samples, positions, entries), float64."""
    moved = np.moveaxis(array.astype(np.float64), axis, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def _classes(one: np.ndarray, other: np.ndarray, activated: bool, weight: np.ndarray) -> np.ndarray:
    log_p, log_q = (
        np.log(np.maximum(z, _TINY)) if activated else z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
        for z in (one, other)
    )
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def _probabilities(one: np.ndarray, other: np.ndarray, activated: bool, weight: np.ndarray) -> np.ndarray:
    p, q = (np.clip(z if activated else 1 / (1 + np.exp(-z)), 1e-7, 1 - 1e-7) for z in (one, other))
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=-1)


def _values(one: np.ndarray, other: np.ndarray, activated: bool, weight: np.ndarray) -> np.ndarray:
    counted = one[weight > 0]
    spread = counted.std(axis=0)
    spread = np.maximum(spread, _FLOOR * spread.max())
    return 0.5 * np.square((other - one) / spread).mean(axis=-1)


def _direction(one: np.ndarray, other: np.ndarray, activated: bool, weight: np.ndarray) -> np.ndarray:
    one, other = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (one, other))
    return _values(one, other, activated, weight)


_ROLES: Mapping[str, Callable[[np.ndarray, np.ndarray, bool, np.ndarray], np.ndarray]] = {
    "classes": _classes, "probabilities": _probabilities, "values": _values, "direction": _direction,
}  # fmt: skip


def cosine(subject: Subject, expected: Arrays, actual: Arrays) -> float:
    """Mean cosine of the outputs of samples before and after, over all outputs that matter."""
    found = []
    for name in subject.outputs:
        one, other = (
            array[name].reshape(len(array[name]), -1).astype(np.float64) for array in (expected, actual)
        )
        found.append(
            ((one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean()
        )
    return float(np.mean(found))
