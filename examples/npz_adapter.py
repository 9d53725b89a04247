"""A format of its own in one file: networks of dense layers, stored as matrices in an archive `.npznet`.

Makes a network, gives its weights 3.5 bits on average, writes it and reads it again: python examples/npz_adapter.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import lampq
from lampq.adapters import ModelFormat, register
from lampq.core.measuring.encoding import coded_for, encoder
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.packing import pack, payload_bytes, unpack
from lampq.core.values.publishing import atomic_path


class NpzModel:
    """Matrices (out, in), in order, with ReLU in between: inputs (samples, width) to logits (samples, classes)."""

    format, grid, skipped = "npz", "auto", ()

    def __init__(
        self, path: Path, weights: dict[str, np.ndarray], digest: str, coding: Coding | None = None
    ) -> None:
        self.path, self.digest, self._weights = path, digest, weights
        self.coding = coding or Coding()
        width = next(iter(weights.values())).shape[1]
        self.input_specs = (InputSpec(name="x", shape=(None, width)),)
        self.output_specs = (OutputSpec(name="y", shape=(None, None)),)
        self.heads = (Head(name="y", role=CLASSES, reason="this format is for classifiers"),)

    def layers(self):
        *_, last = self._weights
        return tuple(
            Layer.from_weight(name, weight, kind="head" if name == last else "linear", channel_axis=0)
            for name, weight in self._weights.items()
        )

    def weight(self, name):
        return self._weights[name].copy()

    def run(self, batch):
        *_, (_, values) = self._steps(batch)
        return Batch.of(values, name="y")

    def with_heads(self, choices):
        raise AdapterError("this format has one output, the logits of classes")

    def taps(self, batch):
        yield from ((name, values, 1) for name, values in self._steps(batch) if name)

    def _steps(self, batch):
        """The input of every layer with the layer's name, then the logits."""
        values = np.asarray(batch, np.float32)
        for name, weight in self._weights.items():
            yield name, values
            values = np.maximum(values @ weight.T, 0) if weight is not self._last else values @ weight.T
        yield None, values

    @property
    def _last(self):
        return list(self._weights.values())[-1]

    def with_weights(self, weights):
        return NpzModel(self.path, {**self._weights, **weights}, self.digest, self.coding)

    def with_coding(self, coding):
        if coding.block is not None:
            raise AdapterError("this format keeps one scale per row; leave --block out")
        return NpzModel(self.path, self._weights, self.digest, coding)

    def sweep(self, batch, candidates):
        for name, option, weight in candidates:
            yield name, option, self.with_weights({name: weight}).run(batch)

    def payload_bytes(self, layer, bits, container):
        return payload_bytes(layer.size, bits) + 4 * layer.channels if container == "bitplane" else None

    def rest_bytes(self, *, activations=False):
        return 0

    def file_bytes(self):
        return self.path.stat().st_size

    def stored_bits(self):
        return {}

    def write(self, plan, path, *, calibration=None):
        model, arrays = coded_for(self, plan), {}
        for layer in plan.layers:
            rows = encoder(model, layer.name, 0)(layer.weight_bits)
            planes = pack(rows.codes, rows.bits)
            arrays |= {f"{layer.name}:{i}": plane for i, plane in enumerate(planes)}
            arrays[f"{layer.name}:scale"] = rows.scale
            arrays[f"{layer.name}:form"] = np.array([*layer.shape, rows.bits, rows.step, rows.offset])
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)


def read(path: Path) -> NpzModel:
    """A float network, or one that `NpzModel.write` made."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    weights = {name: array for name, array in arrays.items() if ":" not in name}
    for name in (key.removesuffix(":form") for key in arrays if key.endswith(":form")):
        rows, columns, bits, step, offset = arrays[f"{name}:form"].tolist()
        planes = [arrays[f"{name}:{i}"] for i in range(4) if f"{name}:{i}" in arrays]
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
