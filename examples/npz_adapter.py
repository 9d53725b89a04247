"""A format of its own in one file: networks of dense layers, stored as matrices in an archive `.npznet`.

Makes a network, gives its weights 3.5 bits on average, writes it and reads it again: python examples/npz_adapter.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lampq
from lampq.adapters import ModelFormat, register
from lampq.adapters.network import Network, NetworkModel
from lampq.core.quantizing.plain_arrays import weights_of
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.output_spec import OutputSpec


def read(path: Path) -> NetworkModel:
    """Matrices (out, in), in order, with ReLU in between: float ones, or those that lampq has quantized."""
    with np.load(path, allow_pickle=False) as archive:
        weights = weights_of(dict(archive))
    *_, last = weights
    network = Network(
        format=NPZ.name,
        path=Path(path),
        weights=weights,
        run=run,
        save=save,
        input_specs=(InputSpec(name="x", shape=(None, next(iter(weights.values())).shape[1])),),
        output_specs=(OutputSpec(name="y", shape=(None, None)),),
        heads=(Head(name="y", role=CLASSES, reason="this format is for classifiers"),),
        kinds={last: "head"},
    )
    return network.model()


def run(weights, inputs, see):
    """Logits (samples, classes) from inputs (samples, width)."""
    values = inputs["x"]
    for place, (name, weight) in enumerate(weights.items(), start=1):
        see(name, values)
        values = values @ weight.T
        values = values if place == len(weights) else np.maximum(values, 0)
    return {"y": values}


def save(handle, arrays):
    """An archive of arrays by name."""
    np.savez(handle, **arrays)


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
