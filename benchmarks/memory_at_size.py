"""Peak memory of verbs on large inputs: ONNX files with external data, profiles and plans of many layers.

python benchmarks/memory_at_size.py [--only PART-OF-A-NAME]

Every input is made in a temporary folder by a process of its own, and every verb runs as a child whose peak resident
memory the system reports. The largest case takes about 4 GB of disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import report

from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.profile import Profile
from lampq.core.values.tables import known_tables

WIDTH = 4096
WIDTHS = (2, 3, 4, 5, 6, 7, 8)
PARTS = ("qkv", "proj", "fc1", "fc2")
# Rank of the interactions.
RANK = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A verb on an input.

    Attributes:
        name: What is measured.
        make: Makes the input in a folder, in a process of its own.
        size: Argument of `make`.
        command: Words after `lampq`.
        files: Files (`*` is any text) whose bytes are the size of the input.
    """

    name: str
    make: Callable[[Path, int], None]
    size: int
    command: Sequence[str]
    files: Sequence[str]


def write_onnx(folder: Path, layers: int) -> None:
    """A chain of square MatMul layers of random weights, data beside the model, and a plan of mixed widths."""
    import onnx_ir as ir

    import lampq

    def weight(name: str, seed: int) -> ir.Value:
        def make() -> ir.Tensor:
            array = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), dtype=np.float32)
            return ir.Tensor(array / np.float32(np.sqrt(WIDTH)), name=name)

        shape = ir.Shape([WIDTH, WIDTH])
        tensor = ir.LazyTensor(make, ir.DataType.FLOAT, shape, name=name)
        return ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(ir.DataType.FLOAT))

    def activation(name: str) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([None, WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))

    value = activation("x")
    inputs, nodes, weights = [value], [], []
    for index in range(layers):
        weights.append(weight(f"blocks.{index}.weight", index))
        nodes.append(ir.node("MatMul", [value, weights[-1]], name=f"blocks.{index}"))
        (value,) = nodes[-1].outputs
    value.name, value.shape, value.type = "logits", ir.Shape([None, WIDTH]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(inputs, [value], nodes=nodes, initializers=weights, opset_imports={"": 18}, name="chain")
    ir.save(ir.Model(graph, ir_version=9), folder / "model.onnx", external_data="model.onnx.data")
    model = lampq.read(folder / "model.onnx")
    decisions = tuple(
        PlanLayer.of(
            layer,
            weight_bits=WIDTHS[index % len(WIDTHS)],
            payload_bytes=0,
        )
        for index, layer in enumerate(model.layers())
    )
    Plan(layers=decisions, mode="uniform", budget={}, container="bitplane", rest_bytes=0).write(
        folder / "plan.json"
    )


def write_profile(folder: Path, layers: int, *, interactions: bool = True) -> None:
    """A profile of small layers with random damage, and a plan of its best mixed widths in mode kl."""
    rng = np.random.default_rng(0)
    table = (layers, len(WIDTHS))
    damage = rng.exponential(size=(layers, 1)) * 4.0 ** -np.array(WIDTHS, dtype=np.float64)
    records = []
    for index in range(layers):
        weight = rng.standard_normal((16, 16), dtype=np.float32)
        records.append(
            Layer.from_weight(
                f"blocks.{index // 4}.{PARTS[index % 4]}", weight, kind=PARTS[index % 4], channel_axis=0
            )
        )
    gram = None
    if interactions:
        moved = rng.standard_normal((damage.size, RANK), dtype=np.float32)
        moved *= np.sqrt(damage / RANK).reshape(-1, 1).astype(np.float32)
        gram = (moved @ moved.T).astype(np.float64).reshape(*table, *table)
    profile = Profile(
        layers=tuple(records),
        options=tuple(Option(weight_bits=bits) for bits in WIDTHS),
        tables=known_tables(
            weight_error=damage,
            payload_bytes=np.array([[256 * bits // 8 + 64 for bits in WIDTHS]] * layers),
            kl=damage,
            gram=gram,
        ),
        rest_bytes=1000,
        samples=64,
    )
    profile.write(folder / "profile.json")


def write_profile_and_plan(folder: Path, layers: int) -> None:
    """A profile without interactions and its plan at 4 bits."""
    import lampq

    write_profile(folder, layers, interactions=False)
    profile = Profile.read(folder / "profile.json")
    lampq.plan(profile, average_bits=4).write(folder / "plan.json")


PROFILE = ("profile", "model.onnx", "--no-data", "--bits", "2,4,8", "-o", "profile.json")
APPLY = ("apply", "model.onnx", "plan.json", "-o", "out.onnx")
PLAN = ("plan", "profile.json", "--avg-bits", "4", "-o", "plan.json")
REPORT = ("report", "plan.json", "--profile", "profile.json", "-o", "out.html")
ONNX = ("model.onnx", "model.onnx.data")
ARRAYS = ("profile.json", "profile.*.npz")
CASES = (
    Case(name="profile --no-data, 2.5 GB ONNX", make=write_onnx, size=37, command=PROFILE, files=ONNX),
    Case(name="apply, 1.6 GB ONNX", make=write_onnx, size=24, command=APPLY, files=ONNX),
    Case(name="apply, 2.4 GB ONNX", make=write_onnx, size=36, command=APPLY, files=ONNX),
    Case(name="plan, superposition, 500 layers", make=write_profile, size=500, command=PLAN, files=ARRAYS),
    Case(name="plan, superposition, 1,000 layers", make=write_profile, size=1000, command=PLAN, files=ARRAYS),
    Case(name="plan, superposition, 2,000 layers", make=write_profile, size=2000, command=PLAN, files=ARRAYS),
    Case(name="report, 1,000 layers", make=write_profile_and_plan, size=1000, command=REPORT, files=ARRAYS),
    Case(name="report, 10,000 layers", make=write_profile_and_plan, size=10000, command=REPORT, files=ARRAYS),
)


def measured(case: Case) -> list[str]:
    """A row of the table: name, input, seconds, peak, peak over input, size of what was written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process of its own: a child starts with the memory of its parent on the books.
        writer = multiprocessing.get_context("spawn").Process(target=case.make, args=(folder, case.size))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(f"{case.name}: the input could not be made")
        size = sum(file.stat().st_size for name in case.files for file in folder.glob(name))
        before = {entry.name for entry in folder.iterdir()}
        began = time.perf_counter()
        command = [sys.executable, "-m", "lampq.cli", *case.command, "--quiet"]
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        made = sum(entry.stat().st_size for entry in folder.iterdir() if entry.name not in before)
    peak = usage.ru_maxrss * 1024
    if status:
        return [case.name, f"{size / 1e6:,.0f}", f"{seconds:.1f}", f"{peak / 1e6:,.0f}", "", "refused"]
    figures = (f"{size / 1e6:,.0f}", f"{seconds:.1f}", f"{peak / 1e6:,.0f}", f"{peak / size:.2f}")
    return [case.name, *figures, f"{made / 1e6:,.2f}"]


def main() -> None:
    """Measure all cases, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this; nothing is written then")
    only = parser.parse_args().only
    rows = []
    for case in CASES:
        if only in case.name:
            rows.append(measured(case))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    columns = ("verb and input", "input (MB)", "seconds", "peak memory (MB)", "peak / input", "written (MB)")
    if not only:
        packages = ("numpy", "onnxruntime", "onnx-ir")
        report.write(
            "memory_at_size", "Peak memory on large inputs", report.table(columns, rows), packages=packages
        )


if __name__ == "__main__":
    main()
