"""Which operators compute with codes of 2, 4 and 8 bits, and which compute garbage: what containers.py relies on.

    python benchmarks/tflite_operators.py

Each operator gets one weight with a scale per channel, as codes that it reads itself and as codes behind a DEQUANTIZE,
and is compared with NumPy on the values that the codes stand for; with XNNPACK and without it. No code of lampq writes
the files. Every run is a process of its own, as some operators end it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import report

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
# Axis of the channels of each case, and version of the operator where it reads codes itself.
PLACES = {
    "linear": (0, 14), "grouped": (0, 8), "depthwise": (3, 6), "transposed": (0, 5), "solid": (4, 1),
    "looked_up": (0, 4), "gathered": (0, 1), "batched": (2, 1), "recurrent": (0, 1),
}  # fmt: skip
OPERATORS = {
    "linear": "FULLY_CONNECTED", "grouped": "CONV_2D (2 groups)", "depthwise": "DEPTHWISE_CONV_2D",
    "transposed": "TRANSPOSE_CONV", "solid": "CONV_3D", "looked_up": "EMBEDDING_LOOKUP", "gathered": "GATHER",
    "batched": "BATCH_MATMUL (batch of constants)", "recurrent": "UNIDIRECTIONAL_SEQUENCE_LSTM (all gates)",
}  # fmt: skip


def main() -> None:
    """One row for each operator and width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--one", nargs=4, help="name, bits, form, delegates: one run, as a process of its own"
    )
    args = parser.parse_args()
    if args.one:
        print(measured(args.one[0], int(args.one[1]), args.one[2], args.one[3] == "xnnpack"))
        return
    rows = []
    for name, operator in OPERATORS.items():
        for bits in (8, 4, 2):
            cells = [
                _apart(name, bits, form, kind) for form in ("codes", "numbers") for kind in ("xnnpack", "own")
            ]
            rows.append((operator, bits, *cells))
    columns = (
        "operator",
        "bits",
        "codes, XNNPACK",
        "codes, own kernels",
        "DEQUANTIZE, XNNPACK",
        "DEQUANTIZE, own kernels",
    )
    body = report.table(columns, rows) + (
        "\n\nRelative error against NumPy with the values of the codes; weights per channel, float inputs (which "
        "operators that read codes round to 8 bits: errors below 1e-2 are that)."
    )
    report.write(
        "tflite_operators", "Operators and containers of TFLite", body, packages=("numpy", "ai-edge-litert")
    )


def _apart(name: str, bits: int, form: str, kind: str) -> str:
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, str(bits), form, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode < 0:
        return f"ends the process (signal {-done.returncode})"
    lines = done.stdout.split()
    return lines[-1] if done.returncode == 0 and lines else "refused"


def measured(name: str, bits: int, form: str, delegates: bool) -> str:
    """The relative error of one operator, one significant digit."""
    import test_tflite_operators as cases

    if name == "recurrent":
        shapes = [(6, 7)] * 4 + [(6, 6)] * 4
        coded = [_codes(cases.normal(*shape, seed=i), 0, bits) for i, shape in enumerate(shapes)]
        biases = [cases.normal(6, seed=i) for i in range(4)]
        sample = cases.normal(1, 5, 7)
        expected = cases.recurrent_oracle(sample, [values for _, _, values in coded], biases)
        with tempfile.TemporaryDirectory() as folder:
            path = _recurrent(Path(folder) / "m.tflite", coded, biases, bits, form)
            return f"{_relative(cases.run(path, sample, delegates=delegates), expected):.0e}"
    build, shape, oracle = _case(cases, name)
    axis, version = PLACES[name]
    codes, scale, values = _codes(cases.normal(*shape), axis, bits)
    with tempfile.TemporaryDirectory() as folder:
        b = _builder()
        x, y, sample = build(b, _weight(b, codes, scale, axis, bits, form))
        if form == "codes":
            b.model.operatorCodes[-1].version = version
        path = b.write(Path(folder) / "m.tflite", [x], [y])
        return f"{_relative(cases.run(path, sample, delegates=delegates), oracle(sample, values)):.0e}"


def _case(cases: Any, name: str) -> tuple[Callable[..., Any], tuple[int, ...], Callable[..., Any]]:
    if name == "linear":
        return _linear, (12, 16), lambda x, w: x @ w.T
    if name == "depthwise":
        return _depthwise, (1, 3, 3, 8), _depthwise_oracle
    build, shape, oracle, _ = cases.CASES[name]
    return build, shape, oracle


def _linear(b: Any, w: int) -> tuple[int, int, np.ndarray]:
    x, y = b.tensor("x", (5, 16)), b.tensor("y", (5, 12))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    return x, y, np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)


def _depthwise(b: Any, w: int) -> tuple[int, int, np.ndarray]:
    x, y = b.tensor("x", (1, 6, 6, 8)), b.tensor("y", (1, 4, 4, 8))
    bias = b.tensor("bias", (8,), np.zeros(8, np.float32))
    values = {"strideW": 1, "strideH": 1, "padding": 1, "depthMultiplier": 1}
    b.op("DEPTHWISE_CONV_2D", [x, w, bias], [y], "DepthwiseConv2DOptions", **values)
    return x, y, np.random.default_rng(0).normal(size=(1, 6, 6, 8)).astype(np.float32)


def _depthwise_oracle(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijc->nhwc", patches, w[0])


def _recurrent(path: Path, coded: list[Any], biases: list[np.ndarray], bits: int, form: str) -> Path:
    b = _builder()
    x = b.tensor("x", (1, 5, 7))
    operands = [x, *(_weight(b, codes, scale, 0, bits, form) for codes, scale, _ in coded), -1, -1, -1]
    operands += [*(b.tensor(f"b{i}", v.shape, v) for i, v in enumerate(biases)), -1, -1]
    for name in ("hidden", "cell"):
        operands.append(b.tensor(name, (1, 6)))
        b.graph.tensors[operands[-1]].isVariable = True
    y = b.tensor("y", (1, 5, 6))
    options = {"fusedActivationFunction": 4, "timeMajor": False}
    name = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    b.op(name, [*operands, -1, -1, -1, -1], [y], "UnidirectionalSequenceLSTMOptions", **options)
    return b.write(path, [x], [y])


def _builder() -> Any:
    from tflite_models import Builder

    return Builder()


def _weight(b: Any, codes: np.ndarray, scale: np.ndarray, axis: int, bits: int, form: str) -> int:
    from lampq.adapters.tflite.bitpacking import pack

    tensor: int = b.tensor("codes", codes.shape, pack(codes, bits), kind=f"INT{bits}", scale=scale)
    b.graph.tensors[tensor].quantization.quantizedDimension = axis
    if form == "codes":
        return tensor
    numbers: int = b.tensor("numbers", codes.shape)
    b.op("DEQUANTIZE", [tensor], [numbers], "DequantizeOptions", version={8: 5, 4: 6, 2: 7}[bits])
    return numbers


def _codes(weight: np.ndarray, axis: int, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, a scale per channel, and the values that they stand for."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    most = (1 << (bits - 1)) - 1
    scale = (np.abs(weight).max(axis=others, keepdims=True) / max(most, 1.5)).astype(np.float32)
    codes = np.clip(np.rint(weight / scale), -most if bits > 2 else -2, most).astype(np.int8)
    return codes, scale.reshape(-1), codes * scale


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
