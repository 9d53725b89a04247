"""A small NumPy model with two inputs and four outputs of different roles behind the model protocol."""

import copy
import hashlib
from pathlib import Path

import numpy as np

from lampq.core.quantizing.coding import Coding
from lampq.core.readouts.choice import chosen_heads
from lampq.core.readouts.inference import infer_heads
from lampq.core.values.batch import Batch
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.packing import payload_bytes

WIDTH, CLASSES, BOXES = 8, 5, 3


class TwoInputsModel:
    """(S, 8) pixels and (S, 4) text, mixed, to logits (S, 5), boxes (S, 3, 4), an embedding (S, 6), and a count."""

    format, grid, coding = "numpy", "auto", Coding()
    path = Path("two_inputs.numpy")
    skipped = (("table", "a table of positions"), ("bias", "too small"), ("bias2", "too small"))
    input_specs = (
        InputSpec(name="pixels", shape=(None, WIDTH)),
        InputSpec(name="text", shape=(None, 4)),
    )
    output_specs = (
        OutputSpec(name="logits", shape=(None, CLASSES), producer="Gemm"),
        OutputSpec(name="pred_boxes", shape=(None, BOXES, 4), producer="Add"),
        OutputSpec(name="text_embeds", shape=(None, 6), producer="LpNormalization", axis=-1),
        OutputSpec(name="count", shape=(None,), dtype="int64"),
    )

    def __init__(self, weights=None):
        rng = np.random.default_rng(3)
        shapes = {"image.fc1": (WIDTH, WIDTH), "text.fc1": (WIDTH, 4), "head": (CLASSES, WIDTH)}
        shapes |= {"boxes": (4 * BOXES, WIDTH), "embed": (6, WIDTH)}
        self._weights = weights or {
            name: (rng.normal(size=shape) / shape[1] ** 0.5).astype(np.float32)
            for name, shape in shapes.items()
        }
        self.heads = infer_heads(self.output_specs, self.input_specs)
        self.writes = []

    digest = hashlib.sha256(b"two inputs").hexdigest()

    def layers(self):
        return tuple(
            Layer.from_weight(name, weight, kind="head" if name == "head" else "fc1", channel_axis=0)
            for name, weight in self._weights.items()
        )

    def weight(self, name):
        return self._weights[name]

    def with_weights(self, weights):
        other = copy.copy(self)
        other._weights = self._weights | {
            name: np.asarray(array, np.float32) for name, array in weights.items()
        }
        return other

    def with_coding(self, coding):
        other = copy.copy(self)
        other.coding = coding
        return other

    def with_heads(self, choices):
        other = copy.copy(self)
        other.heads = chosen_heads(
            choices, self.heads, self.output_specs, self.input_specs, whose=str(self.path)
        )
        return other

    def run(self, batch):
        values = self._forward(batch)[1]
        return Batch.of({head.name: values[head.name] for head in self.heads if head.judged})

    def sweep(self, batch, candidates):
        for name, option, array in candidates:
            yield name, option, self.with_weights({name: array}).run(batch)

    def taps(self, batch):
        for name, values in self._forward(batch)[0].items():
            yield name, values, 1

    def payload_bytes(self, layer, bits, container):
        return payload_bytes(layer.size, bits) + 4 * layer.channels if container == "bitplane" else None

    def rest_bytes(self, *, activations=False):
        return 100

    def file_bytes(self):
        return 400 + sum(weight.nbytes for weight in self._weights.values())

    def stored_bits(self):
        return {}

    def write(self, plan, path, *, calibration=None):
        self.writes.append(plan)
        Path(path).write_text("written")

    def _forward(self, batch):
        """Inputs of the layers by name, and the outputs."""
        batch = Batch.of(batch)
        pixels, text = batch["pixels"], batch["text"]
        weights = self._weights
        mixed = np.tanh(pixels @ weights["image.fc1"].T) + np.tanh(text @ weights["text.fc1"].T)
        vectors = mixed @ weights["embed"].T
        inputs = {"image.fc1": pixels, "text.fc1": text, "head": mixed, "boxes": mixed, "embed": mixed}
        outputs = {
            "logits": 3 * mixed @ weights["head"].T,
            "pred_boxes": (mixed @ weights["boxes"].T).reshape(-1, BOXES, 4),
            "text_embeds": vectors / np.linalg.norm(vectors, axis=-1, keepdims=True),
        }
        return inputs, {name: array.astype(np.float32) for name, array in outputs.items()}


def samples(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return Batch.of(
        {
            "pixels": rng.normal(size=(count, WIDTH)).astype(np.float32),
            "text": rng.normal(size=(count, 4)).astype(np.float32),
        }
    )
