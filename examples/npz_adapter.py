"""A format of its own in one file: networks of dense layers, stored as matrices in an archive `.npznet`.

Makes a network, gives its weights 3.5 bits on average, writes it and reads it again: python examples/npz_adapter.py
"""

from __future__ import annotations

import copy
import hashlib
import io
from functools import cached_property
from pathlib import Path

import numpy as np

import lampq
from lampq.adapters import ModelFormat, register
from lampq.adapters.replaced import fitting, named
from lampq.core.measuring.encoding import coded_for, encoder
from lampq.core.quantizing.coding import Coding
from lampq.core.readouts.choice import chosen_heads
from lampq.core.values.batch import Batch
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head, judged_of
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer, worth_quantizing
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.packing import fields, pack, payload_bytes, unpack
from lampq.core.values.publishing import atomic_path


class NpzModel:
    """Matrices (out, in), in order, with ReLU in between: inputs (samples, width) to logits (samples, classes)."""

    format, grid, skipped = "npz", "auto", ()

    def __init__(self, path: Path, weights: dict[str, np.ndarray], digest: str) -> None:
        self.path, self.digest, self._weights, self.coding = path, digest, weights, Coding()
        *_, self._last = weights
        width = next(iter(weights.values())).shape[1]
        self.input_specs = (InputSpec(name="x", shape=(None, width)),)
        self.output_specs = (OutputSpec(name="y", shape=(None, None)),)
        self.heads = (Head(name="y", role=CLASSES, reason="this format is for classifiers"),)

    def layers(self):
        return self._layers

    @cached_property
    def _layers(self):
        return tuple(
            Layer.from_weight(name, weight, kind="head" if name == self._last else "linear", channel_axis=0)
            for name, weight in self._weights.items()
            if worth_quantizing(weight.shape)
        )

    def _layer(self, name):
        return named({layer.name: layer for layer in self.layers()}, name, whose=str(self.path))

    def weight(self, name):
        return self._weights[self._layer(name).name].copy()

    def run(self, batch):
        judged_of(self.heads, str(self.path))
        inputs = checked_inputs(batch, self.input_specs, str(self.path))
        return Batch([{"y": list(self._steps(group["x"]))[-1][1]} for group in inputs])

    def _variant(self, **changed):
        model = copy.copy(self)
        vars(model).pop("_layers", None)
        vars(model).update(changed)
        return model

    def with_heads(self, choices):
        heads = chosen_heads(choices, self.heads, self.output_specs, self.input_specs, whose=str(self.path))
        return self._variant(heads=heads)

    def with_weights(self, weights):
        new = {
            name: fitting(array, self._layer(name).shape, layer=name, whose=str(self.path))
            for name, array in weights.items()
        }
        return self._variant(_weights=self._weights | new)

    def with_coding(self, coding):
        if coding.block is not None:
            raise AdapterError("this format keeps one scale per row; leave --block out")
        return self._variant(coding=coding)

    def taps(self, batch):
        names = {layer.name for layer in self.layers()}
        for group in checked_inputs(batch, self.input_specs, str(self.path)):
            yield from ((name, values, 1) for name, values in self._steps(group["x"]) if name in names)

    def _steps(self, values):
        """The input of every matrix with its name, then the logits."""
        for name, weight in self._weights.items():
            yield name, values
            values = values @ weight.T if name == self._last else np.maximum(values @ weight.T, 0)
        yield None, values

    def sweep(self, batch, candidates):
        for name, option, weight in candidates:
            yield name, option, self.with_weights({name: weight}).run(batch)

    def payload_bytes(self, layer, bits, container):
        return payload_bytes(layer.size, bits) + 4 * layer.channels if container == "bitplane" else None

    def rest_bytes(self, *, activations=False):
        """The archive without codes and scales: at 7 bits, which take the most planes, and the small matrices."""
        nothing, archive = np.zeros(0, np.uint8), io.BytesIO()
        planes = [nothing] * len(fields(7))
        stored = {
            layer.name: _stored(layer.name, layer.shape, planes, nothing, (7, 1, 0))
            for layer in self.layers()
        }
        np.savez(archive, **self._arrays(stored))
        return archive.tell()

    def _arrays(self, stored):
        """What an archive holds, in the order of the model, with some layers quantized."""
        arrays = {}
        for name, weight in self._weights.items():
            arrays |= stored.get(name, {name: weight})
        return arrays

    def file_bytes(self):
        return self.path.stat().st_size

    def stored_bits(self):
        return {}

    def write(self, plan, path, *, calibration=None):
        model, stored = coded_for(self, plan), {}
        for layer in plan.layers:
            rows = encoder(model, layer.name, 0)(layer.weight_bits)
            planes, grid = pack(rows.codes, rows.bits), (rows.bits, rows.step, rows.offset)
            stored[layer.name] = _stored(layer.name, layer.shape, planes, rows.scale, grid)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **self._arrays(stored))


def _stored(name, shape, planes, scale, grid):
    """The arrays of a quantized layer."""
    parts = {str(i): plane for i, plane in enumerate(planes)}
    parts |= {"scale": scale, "form": np.array([*shape, *grid])}
    return {f"{name}:{part}": array for part, array in parts.items()}


def read(path: Path) -> NpzModel:
    """A float network, or one that `NpzModel.write` made."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    weights = {}
    for name in dict.fromkeys(key.partition(":")[0] for key in arrays):
        if name in arrays:
            weights[name] = arrays[name].astype(np.float32)
            continue
        rows, columns, bits, step, offset = arrays[f"{name}:form"].tolist()
        planes = [arrays[f"{name}:{i}"] for i in range(len(fields(bits)))]
        codes = unpack(planes, bits, rows * columns).reshape(rows, columns).astype(np.float32)
        weights[name] = (step * codes - offset) * arrays[f"{name}:scale"][:, None]
    return NpzModel(Path(path), weights, hashlib.sha256(Path(path).read_bytes()).hexdigest())


NPZ = ModelFormat(name="npz", title="Dense NumPy", endings=(".npznet",), read=read)
register(NPZ)


def main() -> None:
    rng = np.random.default_rng(0)
    shapes = {"first": (64, 32), "second": (64, 64), "third": (64, 64), "head": (10, 64)}
    network = {
        name: rng.normal(size=shape).astype(np.float32) / shape[1] ** 0.5 for name, shape in shapes.items()
    }
    with Path("network.npznet").open("wb") as handle:
        np.savez(handle, **network)
    model = lampq.read("network.npznet")
    images = rng.normal(size=(128, 32)).astype(np.float32)

    profile = lampq.profile(model, images, bits=(2, 3, 4, 6, 8))
    plan = lampq.plan(profile, average_bits=3.5)
    lampq.apply(model, plan, "quantized.npznet", force=True)

    evaluation = lampq.evaluate(lampq.read("quantized.npznet"), images, reference=model)
    print(plan.widths, f"{plan.payload_bytes:,} bytes of weights")
    print(f"predicted {plan.predicted_kl:.4f} nats, measured {evaluation.kl:.4f}")


if __name__ == "__main__":
    main()
