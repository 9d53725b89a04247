"""A small residual network in NumPy behind the model protocol: real, nonlinear, and quick enough for exhaustion."""

import copy
import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from lampq.adapters.replaced import fitting, named
from lampq.core.measuring.encoding import coded_for, encoder
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import from_rows
from lampq.core.readouts.choice import chosen_heads
from lampq.core.values.batch import Batch
from lampq.core.values.blocks import scale_count
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.head import CLASSES, Head, judged_of
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.packing import fields, pack, payload_bytes, unpack
from lampq.core.values.publishing import atomic_path

# Room for the header of an array, its form, and the names.
_HEADERS = 512


class NumpyModel:
    """Inputs (S, width) through residual tanh layers to logits (S, classes); every layer is a matrix (out, in)."""

    path = Path("numpy")
    format = "numpy"
    grid = "auto"
    coding = Coding()
    heads = (Head(name="logits", role=CLASSES),)
    output_specs = (OutputSpec(name="logits", shape=(None, None), producer="MatMul"),)

    def __init__(self, weights, *, fixed=()):
        """`fixed` weights are no layers. The others are, however small: tests want models of a few numbers."""
        self._stored = self._weights = weights
        self.fixed = tuple(fixed)

    @classmethod
    def random(cls, seed=0, *, depth=4, width=8, classes=4):
        rng = np.random.default_rng(seed)
        shapes = {f"blocks.{i}.fc1": (width, width) for i in range(depth)} | {"head": (classes, width)}
        return cls(
            {
                name: (rng.normal(size=shape) * rng.uniform(0.3, 1.2) / np.sqrt(width)).astype(np.float32)
                for name, shape in shapes.items()
            }
        )

    @property
    def input_specs(self):
        return (InputSpec(name="x", shape=(None, next(iter(self._weights.values())).shape[1])),)

    @cached_property
    def digest(self):
        return hashlib.sha256(b"".join(weight.tobytes() for weight in self._stored.values())).hexdigest()

    @cached_property
    def _layers(self):
        return tuple(
            Layer.from_weight(name, weight, kind="head" if name == "head" else "fc1", channel_axis=0)
            for name, weight in self._weights.items()
            if name not in self.fixed
        )

    @property
    def skipped(self):
        return tuple((name, "fixed") for name in self.fixed)

    def layers(self):
        return self._layers

    def _layer(self, name):
        return named({layer.name: layer for layer in self.layers()}, name, whose=str(self.path))

    def weight(self, name):
        return self._weights[self._layer(name).name].copy()

    def _variant(self, **changed):
        other = copy.copy(self)
        other.__dict__.pop("_layers", None)
        other.__dict__ |= changed
        return other

    def with_weights(self, weights):
        new = {
            name: fitting(array, self._layer(name).shape, layer=name, whose=str(self.path))
            for name, array in weights.items()
        }
        return self._variant(_weights=self._weights | new)

    def with_coding(self, coding):
        return self._variant(coding=coding)

    def with_heads(self, choices):
        heads = chosen_heads(choices, self.heads, self.output_specs, self.input_specs, whose=str(self.path))
        return self._variant(heads=heads)

    def run(self, batch):
        judged_of(self.heads, str(self.path))
        return Batch([{"logits": self._forward(array)[-1]} for array in self._arrays(batch)])

    def sweep(self, batch, candidates):
        for name, option, array in candidates:
            yield name, option, self.with_weights({name: array}).run(batch)

    def taps(self, batch):
        names = {layer.name for layer in self.layers()}
        for array in self._arrays(batch):
            for name, values in zip(self._weights, self._forward(array), strict=False):
                if name in names:
                    yield name, values, 1

    def payload_bytes(self, layer, bits, container):
        scales = scale_count(layer.shape, layer.channel_axis, self.coding.block)
        return payload_bytes(layer.size, bits) + 4 * scales if container == "bitplane" else None

    def rest_bytes(self, *, activations=False):
        floats = sum(_HEADERS + self._weights[name].nbytes for name in self.fixed)
        return _HEADERS + 3 * _HEADERS * len(self.layers()) + floats

    def file_bytes(self):
        return _HEADERS + sum(_HEADERS + weight.nbytes for weight in self._weights.values())

    def stored_bits(self):
        return {}

    def write(self, plan, path, *, calibration=None):
        """One array after the other: names, then the form of each weight, and its codes and scales or its numbers."""
        model = coded_for(self, plan)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            quantized = {
                layer.name: encoder(model, self._layer(layer.name).name, 0)(layer.weight_bits)
                for layer in plan.layers
            }
            np.save(handle, np.array(list(self._weights)))
            for name, weight in self._weights.items():
                if name not in quantized:
                    np.save(handle, np.zeros(0, np.int64))
                    np.save(handle, weight)
                    continue
                rows = quantized[name]
                np.save(handle, np.array([*weight.shape, rows.bits, rows.step, rows.offset]))
                np.save(handle, np.concatenate(pack(rows.codes, rows.bits)))
                np.save(handle, rows.scale)

    def _arrays(self, batch):
        return [group["x"] for group in checked_inputs(batch, self.input_specs, str(self.path))]

    def _forward(self, values):
        """Inputs of all layers, then the logits."""
        values = [np.asarray(values).astype(np.float32)]
        *blocks, head = self._weights.values()
        for weight in blocks:
            values.append(values[-1] + np.tanh(values[-1] @ weight.T))
        return [*values, 3 * values[-1] @ head.T]


def read(path):
    """A model that `NumpyModel.write` wrote."""
    weights = {}
    with path.open("rb") as handle:
        for name in np.load(handle).tolist():
            form, array = np.load(handle), np.load(handle)
            weights[name] = _dequantized(array, np.load(handle), *form.tolist()) if form.size else array
    return NumpyModel(weights)


def _dequantized(planes, scale, rows, columns, bits, step, offset):
    sizes = [payload_bytes(rows * columns, field.width) for field in fields(bits)]
    codes = unpack(np.split(planes, np.cumsum(sizes)[:-1]), bits, rows * columns)
    values = (step * codes.astype(np.float32) - offset).reshape(len(scale), -1) * scale[:, None]
    return from_rows(values.astype(np.float32), (rows, columns), 0)
