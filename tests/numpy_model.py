"""A small residual network in NumPy behind the model protocol: real, nonlinear, and quick enough for exhaustion."""

from pathlib import Path

import numpy as np

from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer


class NumpyModel:
    """Inputs (S, width) through residual tanh layers to logits (S, classes); every layer is a matrix (out, in)."""

    path = Path("numpy")
    format = "numpy"
    grid = "auto"
    coding = Coding()
    heads = (Head(name="logits", role=CLASSES),)
    input_specs = (InputSpec(name="x", shape=(None, None)),)

    def __init__(self, weights):
        self._weights = weights

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

    def layers(self):
        return tuple(
            Layer.from_weight(name, weight, kind="head" if name == "head" else "fc1", channel_axis=0)
            for name, weight in self._weights.items()
        )

    def weight(self, name):
        return self._weights[name]

    def with_weights(self, weights):
        assert set(weights) <= set(self._weights)
        return NumpyModel(self._weights | {name: array.astype(np.float32) for name, array in weights.items()})

    def with_coding(self, coding):
        other = NumpyModel(self._weights)
        other.coding = coding
        return other

    def run(self, batch):
        return Batch.of(self._forward(batch)[-1], name="logits")

    def sweep(self, batch, candidates):
        for name, option, array in candidates:
            yield name, option, self.with_weights({name: array}).run(batch)

    def taps(self, batch):
        for name, values in zip(self._weights, self._forward(batch), strict=False):
            yield name, values, 1

    def _forward(self, batch):
        """Inputs of all layers, then the logits."""
        values = [np.asarray(batch).astype(np.float32)]
        *blocks, head = self._weights.values()
        for weight in blocks:
            values.append(values[-1] + np.tanh(values[-1] @ weight.T))
        return [*values, 3 * values[-1] @ head.T]
