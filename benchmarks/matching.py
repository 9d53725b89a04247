r"""Does a fingerprint find the same weight in another file, and no other; and how fast?

    python benchmarks/matching.py --torch model.py:build --weights weights.pth --onnx dynamo.onnx legacy.onnx \
        --tflite m.tflite

One plan is carried from each file of the trained model to every other. A transformers ViT (q, k, v apart, random
weights) is held against its own ONNX export, and against one with q, k, v fused. Rounding and false matches are
measured on its weights and on random ones.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import report
import torch
from onnx import TensorProto, helper, numpy_helper

import lampq
from lampq import adapters
from lampq.adapters import torch as torch_adapter
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.conversions.imports import given_plan
from lampq.conversions.target import Target
from lampq.core.measuring.model import Model
from lampq.core.values.fingerprint import Fingerprint, distances, to_table
from lampq.core.values.match import match
from lampq.verbs.apply import fit_to

SIZES = {"ViT-S": (384, 12), "ViT-B": (768, 12)}
RANDOM = 2_000


def main() -> None:
    """Measure everything and write `results/matching.md`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("torch", "weights", "tflite"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--onnx", required=True, nargs=2)
    args = parser.parse_args()
    trained = {
        "PyTorch": torch_adapter.read(args.torch, weights=args.weights),
        "ONNX, dynamo": adapters.read(args.onnx[0]),
        "ONNX, legacy": adapters.read(args.onnx[1]),
        "TFLite": adapters.read(args.tflite),
    }
    body = [
        "## One model in several files\n",
        "A plan of random widths made on one file, applied to another: layers matched, layers left over on either "
        "side, and how many take the width that the plan gave them.\n",
        carried(trained),
        "\nA transformers ViT of random weights against its own export, and against weights fused by hand.\n",
        carried(transformers_vit()),
        "\n## Storage in 16 bits\n",
        "Largest distance of a weight to its copy; 1 is the limit.\n",
        rounding(trained["PyTorch"]),
        "\n## False matches\n",
        "Pairs of different weights of one size that would pass for the same weight if it were alone.\n",
        false_matches(trained["PyTorch"]),
        "\n## Time\n",
        "Wall / processor seconds, least of three, files in the cache.\n",
        speed(),
    ]
    packages = ("numpy", "onnx", "torch", "transformers", "ai-edge-litert")
    report.write("matching", "Matching layers across files", "\n".join(body), packages=packages)


def carried(models: Mapping[str, Model]) -> str:
    rows = []
    rng = np.random.default_rng(0)
    for (name, source), (other, target) in itertools.permutations(models.items(), 2):
        layers = source.layers()
        groups = _groups(layers)
        widths = {layer.name: (int(groups[layer.name](rng)), None) for layer in layers}
        plan = given_plan(widths, Target.of(source), notes=())
        found = match(plan.layers, target.layers())
        fitted = fit_to(target, plan).widths
        kept = sum(
            fitted[target.layers()[j].name] == max(plan.layers[i].weight_bits for i in m.left)
            for m in found.matches
            for j in m.right
        )
        rows.append(
            (
                name,
                other,
                f"{sum(len(m.right) for m in found.matches)} of {len(target.layers())}",
                f"{len(found.only_left)}, {len(found.only_right)}",
                sum(m.how == "fused" for m in found.matches),
                f"{kept} of {len(fitted)}",
                f"{max(m.distance for m in found.matches):.2g}",
            )
        )
    columns = ("plan from", "applied to", "matched", "left over", "fused", "width kept", "largest distance")
    return report.table(columns, rows)


def _groups(layers):
    """A random width a layer; q, k and v of a block share theirs, since a fused file has one place for them."""
    drawn: dict[str, int] = {}

    def width(layer, rng):
        if layer.kind not in ("q", "k", "v"):
            return rng.integers(2, 9)
        block = layer.name.rpartition(".")[0]
        return drawn.setdefault(block, int(rng.integers(2, 9)))

    return {layer.name: (lambda rng, layer=layer: width(layer, rng)) for layer in layers}


def transformers_vit() -> dict[str, Model]:
    import transformers

    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=96, num_hidden_layers=6, num_attention_heads=4, intermediate_size=192, image_size=64,
        patch_size=16, num_labels=10,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
    model = adapters.read(folder / "vit")
    export_onnx(model, folder / "vit.onnx")
    fused(model, folder / "fused.onnx")
    return {
        "transformers": model,
        "its ONNX export": adapters.read(folder / "vit.onnx"),
        "q, k, v fused, bfloat16 values": adapters.read(folder / "fused.onnx"),
    }


def fused(model, path: Path) -> None:
    """A chain of products that holds the model's weights, q, k and v in one and all rounded to bfloat16."""
    layers = model.layers()
    arrays, parts = [], []
    for layer in layers:
        rows = model.weight(layer.name).reshape(layer.shape[0], -1)
        if layer.kind in ("q", "k", "v"):
            parts.append(rows)
            if len(parts) < 3:
                continue
            rows, parts = np.concatenate(parts), []
        arrays.append(torch.from_numpy(np.ascontiguousarray(rows)).bfloat16().float().numpy())
    chain(arrays, path)


def chain(arrays: list[np.ndarray], path: Path) -> None:
    """An ONNX file whose products hold these weights, (out, in) each, stored (in, out)."""
    nodes, weights, outputs = [], [], []
    for index, array in enumerate(arrays):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array.T), f"val_{index}"))
        ones = np.ones((1, array.shape[1]), np.float32) / array.shape[1]
        weights.append(numpy_helper.from_array(ones, f"ones_{index}"))
        nodes.append(helper.make_node("ReduceMean", ["x"], [f"m{index}"], keepdims=1, axes=[1]))
        nodes.append(helper.make_node("Mul", [f"m{index}", f"ones_{index}"], [f"x{index}"]))
        nodes.append(
            helper.make_node("MatMul", [f"x{index}", f"val_{index}"], [f"y{index}"], name=f"n{index}")
        )
        nodes.append(helper.make_node("ReduceSum", [f"y{index}"], [f"s{index}"], keepdims=1))
        outputs.append(f"s{index}")
    nodes.append(helper.make_node("Sum", outputs, ["total"]))
    nodes.append(helper.make_node("Mul", ["x", "total"], ["logits"]))
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)


def samples(model) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        "the trained ViT": [model.weight(layer.name) for layer in model.layers()],
        "normal, 768 x 768": [rng.normal(0, 0.02, (768, 768)) for _ in range(12)],
        "normal, 64": [rng.normal(0, 0.02, 64) for _ in range(5_000)],
        "Student t, 3 degrees, 768 x 768": [rng.standard_t(3, (768, 768)) * 0.02 for _ in range(12)],
        "exponential, 768 x 768": [rng.exponential(0.02, (768, 768)) for _ in range(12)],
        "normal, 4096 x 4096": [rng.normal(0, 0.02, (4096, 4096))],
    }


def rounding(model) -> str:
    rows = []
    for name, weights in samples(model).items():
        worst = []
        for dtype in (torch.bfloat16, torch.float16):
            copies = [torch.from_numpy(np.float32(w)).to(dtype).float().numpy() for w in weights]
            worst.append(
                max(
                    Fingerprint.from_array(np.float32(w)).distance(Fingerprint.from_array(c))
                    for w, c in zip(weights, copies, strict=True)
                )
            )
        rows.append((name, len(weights), *(f"{value:.3f}" for value in worst)))
    return report.table(("weights", "tensors", "bfloat16", "float16"), rows)


def false_matches(model) -> str:
    rows = []
    rng = np.random.default_rng(1)
    for count in (64, 4096, 65_536):
        marks = [Fingerprint.from_array(rng.normal(0, 0.02, count).astype(np.float32)) for _ in range(RANDOM)]
        table = to_table(marks)
        apart = distances(table, table)[np.triu_indices(RANDOM, 1)]
        rows.append((f"normal, one initialization, {count:,} weights", *counted(apart)))
    wholes, parts = table[:300].reshape(100, 3, -1).sum(axis=1), table[300:360]
    sums = parts[np.array(list(itertools.combinations(range(60), 3)))].sum(axis=1)
    apart = np.concatenate([distances(whole[None], sums)[0] for whole in wholes])
    rows.append(("sums of three, 65,536 weights each", *counted(apart)))
    layers = model.layers()
    pairs = [
        a.fingerprint.distance(b.fingerprint)
        for a, b in itertools.combinations(layers, 2)
        if a.size == b.size
    ]
    rows.append(("the trained ViT", *counted(np.array(pairs))))
    return report.table(("weights", "pairs", "within 1", "smallest distance"), rows)


def counted(apart: np.ndarray) -> tuple[str, int, str]:
    return f"{len(apart):,}", int((apart <= 1).sum()), f"{apart.min():.2f}"


def speed() -> str:
    rows = []
    for name, (width, depth) in SIZES.items():
        rng = np.random.default_rng(0)
        shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * depth
        arrays = [rng.standard_normal(shape, dtype=np.float32) * 0.02 for shape in shapes]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vit.onnx"
            chain(arrays, path)
            plan = given_plan(
                {layer.name: (4, None) for layer in adapters.read(path).layers()},
                Target.of(adapters.read(path)),
                notes=(),
            )
            plan.write(Path(folder) / "plan.json")
            prints = best(lambda arrays=arrays: [Fingerprint.from_array(a) for a in arrays])
            matching = best(lambda plan=plan: match(plan.layers, plan.layers))
            whole = best(lambda path=path, folder=folder: lampq.match(Path(folder) / "plan.json", path))
        size = sum(a.size for a in arrays)
        rows.append((name, f"{size / 1e6:.0f} M", prints, matching, whole))
    return report.table(
        ("sizes", "weights", "fingerprints", "matching", "plan against ONNX file: read, measure, match"), rows
    )


def best(call) -> str:
    """Least wall and processor seconds of three calls: on a busy machine the two differ."""
    times = []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = (min(column) for column in zip(*times, strict=True))
    return f"{wall:.3f} / {processor:.3f}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import torchvision_ops  # noqa: F401

    main()
