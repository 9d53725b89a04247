"""A score of one's own in one file: the relative error of each layer's output, ||(W_hat - W) X||^2 / ||W X||^2.

It measures a table with the model, which the profile keeps, and plans by it, beside the score that lampq would take.
Needs lampq[onnx]. Writes into the current folder: python examples/custom_score.py

Passed as a record it needs nothing else. To use it by name, `lampq profile --score output-error` and `lampq plan
--mode output-error`, announce it in the pyproject.toml of the package it is in:

    [project.entry-points."lampq.scores"]
    output-error = "your_package.custom_score:OUTPUT_ERROR"
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lampq
from lampq.core.measuring.moments import input_moments
from lampq.core.measuring.setting import rounded_weight
from lampq.core.quantizing.quantizer import as_rows
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH

TABLE = "output_error"
# Parts of the data, `lampq profile --shard`, merge by the average over samples.
KIND = lampq.TableKind(axes=("layers", "options"), merge="mean", unit="share of the output", least=0)


def measure(model, profile: lampq.Profile, images) -> lampq.Profile:
    """The profile with the table measured."""
    moments = input_moments(model, profile.layers, images)
    table = [
        [_error(model, layer, option.weight_bits, moments[layer.name]) for option in profile.options]
        for layer in profile.layers
    ]
    return profile.with_table(TABLE, np.array(table), KIND)


def _error(model, layer: lampq.Layer, bits: int, moment: np.ndarray) -> float:
    """||(W_hat - W) X||^2 / ||W X||^2 by the second moments E[x x^T] of the input."""
    weight = as_rows(model.weight(layer.name), layer.channel_axis)
    change = as_rows(rounded_weight(model, layer, bits), layer.channel_axis) - weight
    return float(np.sum(change @ moment * change) / np.sum(weight @ moment * weight))


def costs(profile: lampq.Profile, recipe: lampq.Recipe) -> np.ndarray:
    """What planning adds up, shape (layers, options)."""
    return profile.tables[TABLE].array


OUTPUT_ERROR = lampq.Score(
    name="output-error", costs=costs, unit="relative output error", needs=(TABLE,), measure=measure
)


def main() -> None:
    model = lampq.read(MODEL_PATH)
    images = lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, samples=64).inputs()
    profile = lampq.profile(model, images, bits=(2, 3, 4, 8), fisher_draws=0, scores=[OUTPUT_ERROR])
    profile.write(Path("profile.json"), force=True)
    profile = lampq.Profile.read(Path("profile.json"))
    for name, mode in {"own": OUTPUT_ERROR, "automatic": "auto"}.items():
        plan = lampq.plan(profile, average_bits=3, mode=mode)
        plan.write(Path(f"{name}.json"), force=True)
        judged = lampq.fake_quantize(model, plan)
        damage = lampq.evaluate(judged, images, reference=model).kl
        print(f"{name}: score {plan.mode}, {plan.average_bits:.2f} bits, {damage:.4f} nats measured")


if __name__ == "__main__":
    main()
