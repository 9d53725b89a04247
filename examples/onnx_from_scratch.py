"""ONNX without PyTorch: a small network made with onnx alone, measured, allocated at the knee, written and reported.

Needs lampq[onnx]. Writes into the current folder: python examples/onnx_from_scratch.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lampq

WIDTH, CLASSES, BLOCKS = 48, 10, 4


def make_network(path: Path) -> None:
    """Residual blocks of two dense layers, and a head; any number of samples."""
    rng = np.random.default_rng(0)
    nodes, constants, values = [], [], "x"

    def dense(inputs: str, name: str, rows: int, columns: int) -> str:
        weight = rng.normal(size=(rows, columns)).astype(np.float32) / np.float32(rows) ** 0.5
        constants.append(numpy_helper.from_array(weight, f"{name}.weight"))
        nodes.append(helper.make_node("MatMul", [inputs, f"{name}.weight"], [name], name=name))
        return name

    for block in range(BLOCKS):
        hidden = dense(values, f"blocks.{block}.mlp.fc1", WIDTH, 2 * WIDTH)
        nodes.append(helper.make_node("Relu", [hidden], [f"{hidden}.relu"]))
        change = dense(f"{hidden}.relu", f"blocks.{block}.mlp.fc2", 2 * WIDTH, WIDTH)
        nodes.append(helper.make_node("Add", [values, change], [f"blocks.{block}"]))
        values = f"blocks.{block}"
    dense(values, "head", WIDTH, CLASSES)
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["samples", WIDTH])],
        [helper.make_tensor_value_info("head", TensorProto.FLOAT, ["samples", CLASSES])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def main() -> None:
    make_network(Path("network.onnx"))
    inputs = np.random.default_rng(1).normal(size=(256, WIDTH)).astype(np.float32)
    calibration, validation = inputs[:96], inputs[96:]

    model = lampq.read("network.onnx")
    profile = lampq.profile(model, calibration, bits=(2, 3, 4, 6, 8), fisher_draws=0)
    knee = next(point for point in lampq.sweep(profile, mode="kl") if point.knee)
    plan = lampq.plan(profile, size_bytes=knee.size_bytes)
    lampq.apply(model, plan, "network-knee.onnx", force=True)
    lampq.report(plan, "report.html", profile=profile, force=True)

    found = lampq.evaluate(lampq.read("network-knee.onnx"), validation, reference=model)
    print(f"the knee lies at {knee.average_bits:.2f} bits: {plan.total_bytes:,} bytes")
    print(f"predicted {plan.predicted_kl:.4f} nats, measured on other data {found.kl:.4f}")


if __name__ == "__main__":
    main()
