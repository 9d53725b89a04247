"""A detector with half a million outputs a sample, and the memory that profiling it takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SIDE, _ANCHORS, _ENTRIES = 512, 25, 5
OUTPUTS = (_SIDE // 8) ** 2 * _ANCHORS * _ENTRIES
"""Boxes and scores a sample."""


def write(path: Path) -> Path:
    """Convolutions down to an eighth, then 25 anchors a cell: four coordinates and a score."""
    rng = np.random.default_rng(0)
    nodes, weights, value, channels = [], [], "x", 3
    for index, width in enumerate((16, 32, 64)):
        weights.append(_weight(rng, f"conv{index}.weight", (width, channels, 3, 3)))
        nodes += [
            helper.make_node(
                "Conv",
                [value, f"conv{index}.weight"],
                [f"c{index}"],
                pads=[1] * 4,
                strides=[2, 2],
                name=f"conv{index}",
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        value, channels = f"r{index}", width
    outputs = []
    for name, entries in (("boxes", 4), ("scores", 1)):
        weights.append(_weight(rng, f"{name}.weight", (entries * _ANCHORS, channels, 1, 1)))
        weights.append(numpy_helper.from_array(np.array([0, -1, entries]), f"{name}.shape"))
        nodes += [
            helper.make_node("Conv", [value, f"{name}.weight"], [f"{name}.map"], name=name),
            helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1]),
            helper.make_node(
                "Reshape", [f"{name}.last", f"{name}.shape"], [name if entries > 1 else "logits"]
            ),
        ]
        outputs.append(
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["n", (_SIDE // 8) ** 2 * _ANCHORS, entries]
            )
        )
    nodes.append(helper.make_node("Sigmoid", ["logits"], ["scores"]))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, _SIDE, _SIDE])
    graph = helper.make_graph(nodes, "detector", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> TensorProto:
    spread = np.sqrt(2 / np.prod(shape[1:]))
    return numpy_helper.from_array(rng.normal(0, spread, shape).astype(np.float32), name)


def profile_peak(folder: Path, samples: int, measure: str) -> tuple[int, int]:
    """Bytes of the model, and the most memory that `lampq profile --measure` had, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write(folder / "detector.onnx")
    data = np.random.default_rng(0).normal(size=(samples, 3, _SIDE, _SIDE)).astype(np.float32)
    np.savez(folder / "x.npz", x=data)
    command = [
        *(
            sys.executable,
            "-m",
            "lampq.cli",
            "profile",
            model,
            "--data",
            folder / "x.npz",
            "--bits",
            "3,4,6,8",
        ),
        *("--measure", measure, "--fisher-draws", "0", "--quiet", "--force", "-o", folder / "profile.json"),
    ]
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit("lampq profile failed on the detector")
    return model.stat().st_size, usage.ru_maxrss * 1024
