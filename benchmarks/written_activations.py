"""Written files with rounded activations: what they take and how fast they are, and whether they lose what was said.

    python benchmarks/written_activations.py speed
    python benchmarks/written_activations.py loss --model vit.onnx --calib calib --val val
    python benchmarks/written_activations.py tflite --model vit.tflite --calib calib --val val
    python benchmarks/written_activations.py ranks --model vit.onnx --calib calib --val val
    python benchmarks/written_activations.py sites --module model.py:build --weights w.pth --plan p.json \
        --calib calib --val val

`speed`: a random ViT of S size at W8A8, W4A8 and W4A16 as plans have it, and the forms of 4-bit weights that runtimes
know, in turns in one process. `loss`: plans of W4A8 and W4A16, the KL of their files in stock ONNX Runtime beside that
of their simulations, which round by elementary arithmetic. `tflite`: the same of a .tflite file in the stock
interpreter, beside what its weights lose by themselves. `ranks`: factors of low rank beside all layers of ONNX files,
and as many bytes of wider layers. `sites`: the simulation of a plan that was made from a
PyTorch model, every site of it rounded, beside that module.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cifar10
import numpy as np
import onnx
import onnx_speed
import onnxruntime as ort
import report
from onnx import TensorProto, helper, numpy_helper

import lampq
from lampq.adapters.data import Preprocess, read_data
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.setting import simulated as simulated_weights

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime")
# (row, weight bits, activation bits, container)
PLANS = (
    ("W8A8, bytes", 8, 8, "int8"),
    ("W4A8, packed", 4, 8, "bitplane"),
    ("W4A8, a byte a weight", 4, 8, "int8"),
    ("W4A16, packed", 4, 16, "bitplane"),
)


def planned(model, images, bits, act_bits, container):
    """The plan of one width for all weights and one for all inputs."""
    inputs = None if act_bits is None else (act_bits,)
    profile = lampq.profile(model, images, bits=(bits,), act_bits=inputs, container=container, fisher_draws=0)
    return lampq.plan(profile, average_bits=bits, mode="kl")


def logits(path, images) -> np.ndarray:
    """Outputs of a file in stock ONNX Runtime, sample by sample in batches."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[at : at + 50]})[0] for at in range(0, len(images), 50)]
    return np.concatenate(parts)


def damage(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Mean KL, nats: by hand, so that nothing of the package judges itself."""
    p, q = (z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in map(np.float64, (reference, outputs)))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def speed(args) -> None:
    """Bytes and milliseconds of a ViT of S size."""
    folder = Path(tempfile.mkdtemp())
    model = lampq.read(onnx_speed.write_vit_s(folder / "float.onnx"))
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    files, notes = {"float": folder / "float.onnx"}, {"float": ("", "", "")}
    exact = logits(files["float"], images)
    for name, bits, act_bits, container in PLANS:
        plan = planned(model, images, bits, act_bits, container)
        files[name] = folder / f"{len(files)}.onnx"
        written = lampq.apply(model, plan, files[name], batch=images)
        if bits == 4:
            lampq.simulate(model, plan, folder / "simulated.onnx", batch=images, force=True)
        said = "" if bits != 4 else f"{damage(exact, logits(folder / 'simulated.onnx', images)):.3g}"
        notes[name] = (plan.total_bytes, said, f"{damage(exact, logits(files[name], images)):.3g}")
        print(name, written.size_bytes, *notes[name], flush=True)
    for name, make in (("INT4 tensors under QDQ", as_int4), ("MatMulNBits, accuracy level 4", as_nbits)):
        files[name], notes[name] = folder / f"{len(files)}.onnx", ("", "", "")
        onnx.save(make(files), files[name])
    feed = {model.input_specs[0].name: images[:1]}
    best = onnx_speed.run_in_turns(files, feed, 1, args.rounds)
    base = best[PLANS[0][0]]
    rows = [
        (
            name,
            notes[name][0],
            path.stat().st_size,
            *notes[name][1:],
            f"{best[name]:.2f}",
            f"{best[name] / base:.3f}",
        )
        for name, path in files.items()
    ]
    columns = ("file", "bytes planned", "bytes", "KL simulated", "KL of the file", "ms", "of W8A8")
    body = report.table(columns, rows) + (
        f"\n\nRandom ViT of S size, 224 x 224, batch of 1, one thread, its own CPU time, the fastest of {args.rounds} "
        f"runs in turns; KL on the two images of noise that the ranges are from. The last two rows are other forms of "
        f"4-bit weights, made of the file above them for their speed alone: their numbers mean nothing."
    )
    report.write("written_activations_speed", "ONNX files of 4-bit weights", body, packages=PACKAGES)


def as_int4(files) -> onnx.ModelProto:
    """W4A8 with its weights as INT4 tensors."""
    model = onnx.load(files["W4A8, a byte a weight"])
    model.ir_version = max(model.ir_version, 10)
    for entry in model.opset_import:
        entry.version = max(entry.version, 21) if entry.domain == "" else entry.version
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2:
            codes = (numpy_helper.to_array(tensor) // 2).ravel()
            low, high = codes[::2] & 15, codes[1::2] & 15
            packed = (low | (high << 4)).astype(np.uint8)
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.INT4, tensor.dims, packed.tobytes(), raw=True)
            )
    return model


def as_nbits(files, block: int = 128) -> onnx.ModelProto:
    """The float model with products that hold 4-bit weights and round their inputs when they run."""
    model = onnx.load(files["float"])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            continue
        rows, columns = weights[node.input[1]].shape
        codes = np.zeros((columns, rows // block, block // 2), np.uint8)
        scales = np.ones(columns * (rows // block), np.float32)
        names = [f"{node.input[1]}.{part}" for part in ("codes", "scales")]
        model.graph.initializer.extend(map(numpy_helper.from_array, (codes, scales), names))
        node.op_type, node.domain = "MatMulNBits", "com.microsoft"
        node.input[1:] = names
        sizes = {"K": rows, "N": columns, "bits": 4, "block_size": block, "accuracy_level": 4}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sizes.items())
    return model


def loss(args) -> None:
    """What files lose in stock ONNX Runtime, and what their simulations say."""
    setting = cifar10.read(args)
    model, images = setting.model, setting.calib[: args.samples]
    exact = logits(args.model, setting.val)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file, simulated = Path(folder) / "q.onnx", Path(folder) / "s.onnx"
        for name, bits, act_bits, container in PLANS:
            plan = planned(model, images, bits, act_bits, container)
            lampq.apply(model, plan, file, batch=images, force=True)
            lampq.simulate(model, plan, simulated, batch=images, force=True)
            rows.append(
                (name, plan.total_bytes, file.stat().st_size, *_judged(exact, setting, simulated, file))
            )
            print(*rows[-1], flush=True)
        rows += list(_budgets(args, setting, images, Path(folder), exact))
    columns = ("plan", "bytes planned", "bytes", "KL simulated", "KL of the file", "ratio", "top-1 (%)")
    body = report.table(columns, rows) + (
        f"\n\nCIFAR-10 ViT, {len(images)} calibration images, weights to the nearest code, {len(exact)} validation "
        f"images through stock ONNX Runtime; inputs of all layers are rounded, the patch embedding's too. Budgets are "
        f"bytes of the file, asked for with 2 to 8 bits and inputs of 8."
    )
    report.write("written_activations", "What files with rounded inputs lose", body, packages=PACKAGES)


def _judged(exact, setting, simulated, file) -> tuple[str, ...]:
    said, outputs = damage(exact, logits(simulated, setting.val)), logits(file, setting.val)
    real = damage(exact, outputs)
    return f"{said:.5f}", f"{real:.5f}", f"{real / said:.3f}", f"{top1(outputs, setting.labels):.2f}"


def top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of right classes, percent."""
    return float(100 * (outputs.argmax(1) == labels).mean())


def _budgets(args, setting, images, folder, exact) -> Iterator[tuple[object, ...]]:
    """Files of budgets in bytes."""
    model, file, simulated = setting.model, folder / "q.onnx", folder / "s.onnx"
    profile = lampq.profile(model, images, act_bits=(8,), fisher_draws=0)
    for size in args.sizes:
        plan = lampq.plan(profile, size_bytes=size)
        lampq.apply(model, plan, file, batch=images, force=True)
        lampq.simulate(model, plan, simulated, batch=images, force=True)
        row = f"at most {size:,} bytes", plan.total_bytes, file.stat().st_size
        yield *row, *_judged(exact, setting, simulated, file)
        print(*row, flush=True)


def tflite(args) -> None:
    """What .tflite files lose in the stock interpreter, beside the loss of their weights alone."""
    setting = cifar10.read(args)
    # Images come class by class.
    some = slice(None, None, max(1, len(setting.val) // args.judged))
    model, images, val, labels = (
        setting.model,
        setting.calib[: args.samples],
        setting.val[some],
        setting.labels[some],
    )
    exact, seconds = interpreted(args.model, val)
    size = Path(args.model).stat().st_size
    rows = [("float", "", size, "", "", f"{top1(exact, labels):.2f}", f"{1000 * seconds:.2f}")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "q.tflite"
        for bits, act_bits in ((8, None), (8, 8), (8, 16), (4, None), (4, 8), (4, 16)):
            inputs = {} if act_bits is None else {"act_bits": (act_bits,)}
            profile = lampq.profile(model, images, bits=(bits,), fisher_draws=0, **inputs)
            plan = lampq.plan(profile, average_bits=bits, mode="kl")
            lampq.apply(model, plan, file, batch=images, force=True)
            alone = damage(exact, np.asarray(simulated_weights(model, plan).run(val)))
            outputs, seconds = interpreted(file, val)
            said = f"W{bits}, inputs rounded while running" if act_bits is None else f"W{bits}A{act_bits}"
            size = file.stat().st_size
            row = (
                f"{alone:.5f}",
                f"{damage(exact, outputs):.5f}",
                f"{top1(outputs, labels):.2f}",
                f"{1000 * seconds:.2f}",
            )
            rows.append((said, plan.total_bytes, size, *row))
            print(*rows[-1], flush=True)
    columns = ("plan", "bytes planned", "bytes", "KL of the weights", "KL of the file", "top-1 (%)", "ms")
    body = report.table(columns, rows) + (
        f"\n\nCIFAR-10 ViT, {len(images)} calibration images, weights to the nearest code, {len(exact)} validation "
        f"images through the stock interpreter, one thread, CPU time of one image; int16 kernels are those of the "
        f"runtime itself, which no delegate speeds up."
    )
    report.write(
        "written_activations_tflite",
        "What .tflite files with rounded inputs lose",
        body,
        packages=("numpy", "ai-edge-litert"),
    )


def ranks(args) -> None:
    """What factors of low rank beside all layers give back in ONNX files, and what bytes alone would."""
    setting = cifar10.read(args)
    model, images = setting.model, setting.calib[: args.samples]
    exact = logits(args.model, setting.val)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "q.onnx"

        def judge(name, plan):
            applied = lampq.apply(model, plan, file, batch=images, force=True)
            outputs = logits(file, setting.val)
            figures = f"{damage(exact, outputs):.5f}", f"{top1(outputs, setting.labels):.2f}"
            said = (
                ""
                if plan.layers[0].activation_bits
                else simulated_loss(model, applied.plan, images, setting, exact)
            )
            rows.append((name, applied.plan.payload_bytes, file.stat().st_size, said, *figures))
            print(*rows[-1], flush=True)
            return file.stat().st_size

        for bits, act_bits in ((3, None), (4, 8)):
            flat = planned(model, images, bits, act_bits, "bitplane")
            flat = dataclasses.replace(flat, rounding="inputs")
            name = f"W{bits}" + (f"A{act_bits}" if act_bits else "")
            judge(name, flat)
            for rank in (1, 4):
                size = judge(
                    f"{name}, factors of rank {rank}", lampq.low_rank(flat, [f"{args.layers}={rank}"])
                )
            inputs = {} if act_bits is None else {"act_bits": (act_bits,)}
            profile = lampq.profile(
                model, images, bits=range(2, 9), rounding="inputs", fisher_draws=0, **inputs
            )
            judge(f"{name}, widths of as many bytes", lampq.plan(profile, size_bytes=size))
    columns = ("plan", "payload bytes", "bytes", "KL simulated", "KL of the file", "top-1 (%)")
    body = report.table(columns, rows) + (
        f"\n\nCIFAR-10 ViT, {len(images)} calibration images, codes for the layers' inputs, {len(exact)} validation "
        f"images through stock ONNX Runtime; factors of 8 bits beside {args.layers}."
    )
    report.write("low_rank_onnx", "Factors of low rank in ONNX files", body, packages=PACKAGES)


def simulated_loss(model, plan, images, setting, exact) -> str:
    """What a plan loses in float arithmetic."""
    outputs = lampq.fake_quantize(model, plan, batch=images).run(setting.val)
    return f"{damage(exact, np.asarray(outputs)):.5f}"


def interpreted(path, images) -> tuple[np.ndarray, float]:
    """Outputs of a .tflite file in the stock interpreter, and the CPU seconds of one image."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows, began = [], time.process_time()
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(rows), (time.process_time() - began) / len(images)


def sites(args) -> None:
    """A plan of all sites of a PyTorch model, as a module and as a file."""
    import torch

    model = lampq.read(args.module, weights=args.weights)
    common = {"input_specs": model.input_specs, "preprocess": Preprocess.preset("cifar10")}
    images = np.asarray(read_data(args.calib, samples=args.samples, seed=0, **common).inputs())
    val = read_data(args.val, **common)
    inputs, labels = np.asarray(val.inputs()), val.labels()
    plan = lampq.Plan.read(args.plan)
    exact = np.asarray(measure_reference(model, inputs).outputs)
    with tempfile.TemporaryDirectory() as folder:
        packed, simulated = Path(folder) / "q.safetensors", Path(folder) / "s.onnx"
        lampq.apply(model, plan, packed, batch=images)
        lampq.simulate(model, plan, simulated, batch=images)
        module = lampq.load_quantized(packed, args.module)
        with torch.no_grad():
            batches = [module(torch.from_numpy(inputs[at : at + 50])) for at in range(0, len(inputs), 50)]
        outputs = {"module of load_quantized": torch.cat(batches).numpy(), "file": logits(simulated, inputs)}
    columns = ("what", "KL to float", "top-1 (%)", "outputs that differ by more than 1e-3")
    first = next(iter(outputs.values()))
    rows = [
        (
            name,
            f"{damage(exact, found):.5f}",
            f"{100 * (found.argmax(1) == labels).mean():.2f}",
            f"{(np.abs(found - first).max(axis=1) > 1e-3).mean():.1%}",
        )
        for name, found in outputs.items()
    ]
    tags = [layer.quantizer.tag for layer in plan.layers]
    tags += [side.tag for product in plan.products for side in (product.left, product.right)]
    counts = ", ".join(f"{tag} {tags.count(tag)}" for tag in sorted(set(tags), key=tags.count)[::-1])
    body = report.table(columns, rows) + (
        f"\n\nCIFAR-10 ViT, {plan.average_bits:.2f} bits a weight, every input and every factor of attention rounded "
        f"({counts}); the file in stock ONNX Runtime, {len(inputs)} validation images. Where outputs differ the last "
        f"bit of a float has tipped a value to the next code."
    )
    report.write(
        "simulated_sites", "A plan of all sites in two runtimes", body, packages=(*PACKAGES, "torch")
    )


def main() -> None:
    """One of the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    fast = verbs.add_parser("speed")
    fast.add_argument("--rounds", type=int, default=40)
    fast.set_defaults(run=speed)
    lost = verbs.add_parser("loss")
    cifar10.add_arguments(lost, "--model")
    lost.add_argument("--sizes", type=int, nargs="*", default=[350_000, 420_000, 500_000, 700_000])
    lost.set_defaults(run=loss)
    small = verbs.add_parser("tflite")
    cifar10.add_arguments(small, "--model")
    small.add_argument("--judged", type=int, default=2000, help="validation images (2000)")
    small.set_defaults(run=tflite)
    thin = verbs.add_parser("ranks")
    cifar10.add_arguments(thin, "--model")
    thin.add_argument("--layers", default="*.{attn,mlp}.*", help="layers with factors, a pattern")
    thin.set_defaults(run=ranks)
    every = verbs.add_parser("sites")
    for name in ("module", "weights", "plan", "calib", "val"):
        every.add_argument(f"--{name}", required=True)
    every.set_defaults(run=sites)
    for part in (lost, small, thin, every):
        part.add_argument("--samples", type=int, default=32, help="calibration images (32)")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
