"""Do the tools themselves read what a plan is converted to, and give every layer the width it says?

    pip install --no-deps -r requirements/conversions-no-deps.txt
    python benchmarks/conversions.py

Each tool loads the configuration, quantizes a small model by it, and is then asked for the width of every layer. A
tool that is not installed is listed as such.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import report
import torch
from onnx import TensorProto, helper, numpy_helper

from lampq import adapters
from lampq.adapters import torch as torch_adapter
from lampq.conversions import find
from lampq.conversions.imports import given_plan
from lampq.conversions.target import Target
from lampq.core.values.plan import Plan
from lampq.verbs.convert import convert

WIDTH, LAYERS = 32, 5
TFLITE = Path(__file__).parent.parent / "tests" / "fixtures" / "vit.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A tool, what is converted for it, and how its own idea of the widths is read.

    Attributes:
        tool: Name of the conversion.
        package: Distribution of the tool.
        model: Which of the models: torch, onnx or tflite.
        widths: Weight widths, dealt to the layers in turn.
        ask: From the configuration's text and the plan to widths by layer, as the tool has them.
        how: What was asked, for the table.
        activations: Input widths, dealt in turn.
    """

    tool: str
    package: str
    model: str
    widths: tuple[int, ...]
    ask: Callable[[str, Any, Plan], dict[str, int]]
    how: str
    activations: tuple[int | None, ...] = (None,)


def network() -> torch.nn.Sequential:
    """Five linear layers with rectifiers between."""
    torch.manual_seed(0)
    parts: list[torch.nn.Module] = []
    for index in range(LAYERS):
        parts += [torch.nn.Linear(WIDTH, WIDTH), *([torch.nn.ReLU()] if index < LAYERS - 1 else [])]
    return torch.nn.Sequential(*parts).eval()


def torchao(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    config = config_from_dict(json.loads(text))
    module = copy.deepcopy(model.module)
    quantize_(module, config, filter_fn=None)
    found = {}
    for name in plan.widths:
        rows = module.get_submodule(name).weight.dequantize().detach()
        levels = max(len(row.unique()) for row in rows)
        wide = int(str(config.fqn_to_config[name].weight_dtype).removeprefix("torch.int"))
        found[name] = wide if levels <= 2**wide else -levels
    return found


def compressed_tensors(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    module = copy.deepcopy(model.module)
    apply_quantization_config(module, QuantizationConfig(**json.loads(text)))
    return {name: module.get_submodule(name).quantization_scheme.weights.num_bits for name in plan.widths}


def quanto(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from optimum.quanto import freeze, quantization_map, requantize

    given = json.loads(text)
    module = copy.deepcopy(model.module)
    requantize(module, model.module.state_dict(), given)
    freeze(module)
    assert {k: v["weights"] for k, v in quantization_map(module).items()} == {
        k: v["weights"] for k, v in given.items()
    }
    return {name: module.get_submodule(name).weight_qtype.bits for name in plan.widths}


def modelopt(text: str, model: Any, plan: Plan) -> dict[str, int]:
    import modelopt.torch.quantization as mtq

    module = copy.deepcopy(model.module)
    module = mtq.quantize(module, json.loads(text), forward_loop=lambda m: m(torch.randn(8, WIDTH)))
    return {
        name: module.get_submodule(name).weight_quantizer.num_bits
        for name in plan.widths
        if module.get_submodule(name).weight_quantizer.is_enabled
    }


def aimet_torch(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from aimet_torch.quantsim import QuantizationSimModel

    module = copy.deepcopy(model.module)
    sim = QuantizationSimModel(module, dummy_input=torch.randn(1, WIDTH))
    sim.load_encodings(json.loads(text), strict=True, partial=True)
    return {
        name: int(sim.model.get_submodule(name).param_quantizers["weight"].bitwidth) for name in plan.widths
    }


def aimet_onnx(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim

    sim = QuantizationSimModel(onnx.load(model.path), providers=["CPUExecutionProvider"])
    with tempfile.NamedTemporaryFile("w", suffix=".encodings") as file:
        file.write(text)
        file.flush()
        load_encodings_to_sim(sim, file.name, strict=False, disable_missing_quantizers=False)
    names = {
        layer.name: site.weight.name
        for layer, site in zip(model.layers(), model.variant.opened.sites, strict=True)
    }
    return {name: int(sim.qc_quantize_op_dict[names[name]].bitwidth) for name in plan.widths}


def nncf(text: str, model: Any, plan: Plan) -> dict[str, int]:
    import nncf as tool

    current = onnx.load(model.path)
    for call in json.loads(text)["compress_weights"]:
        options = {k: v for k, v in call.items() if k not in ("mode", "nodes", "ignored_scope")}
        scope = tool.IgnoredScope(names=call["ignored_scope"]["names"], validate=False)
        mode = tool.CompressWeightsMode(call["mode"])
        current = tool.compress_weights(current, mode=mode, ignored_scope=scope, **options)
    return widths_in(current)


def ort_nbits(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, RTNWeightOnlyQuantConfig

    config = RTNWeightOnlyQuantConfig(customized_weight_config=json.loads(text))
    quantizer = MatMulNBitsQuantizer(
        onnx.load(model.path), block_size=32, is_symmetric=True, algo_config=config
    )
    quantizer.process()
    return widths_in(quantizer.model.model)


def ort_qdq(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"x": np.random.default_rng(0).normal(size=(8, WIDTH)).astype(np.float32)}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    overrides = json.loads(text)
    for parts in overrides["TensorQuantOverrides"].values():
        for part in parts:
            part["quant_type"] = QuantType[part["quant_type"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        extra = {**overrides, "UseQDQContribOps": True}
        quantize_static(model.path, path, Reader(), extra_options=extra, weight_type=QuantType.QInt8)
        return widths_in(onnx.load(path))


def ai_edge(text: str, model: Any, plan: Plan) -> dict[str, int]:
    from ai_edge_quantizer import quantizer

    tool = quantizer.Quantizer(str(model.path))
    tool.load_quantization_recipe(json.loads(text))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.tflite"
        tool.quantize().export_model(str(path))
        return {weight.layer.name: weight.weight_bits for weight in adapters.stored(path)}


def widths_in(proto: onnx.ModelProto) -> dict[str, int]:
    """What our own reader finds in a quantized file; it runs the file's own nodes to tell."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        onnx.save(proto, path)
        return {weight.layer.name: weight.weight_bits for weight in adapters.stored(path)}


TRIALS = (
    Trial(tool="torchao", package="torchao", model="torch", widths=(2, 4, 8, 3, 5), activations=(None, 8),
          ask=torchao, how="config_from_dict, quantize_; levels in every row"),
    Trial(tool="compressed-tensors", package="compressed-tensors", model="torch", widths=(2, 4, 8, 3, 5),
          activations=(None, 8), ask=compressed_tensors, how="QuantizationConfig, apply_quantization_config"),
    Trial(tool="quanto", package="optimum-quanto", model="torch", widths=(2, 4, 8), ask=quanto,
          how="requantize, freeze; its own map compared"),
    Trial(tool="modelopt", package="nvidia-modelopt", model="torch", widths=(2, 4, 8, 3, 5), activations=(None, 8),
          ask=modelopt, how="mtq.quantize; enabled weight quantizers"),
    Trial(tool="aimet", package="aimet-torch", model="torch", widths=(2, 4, 8, 3, 5), ask=aimet_torch,
          how="QuantizationSimModel.load_encodings, strict"),
    Trial(tool="aimet", package="aimet-onnx", model="onnx", widths=(2, 4, 8, 3, 5), ask=aimet_onnx,
          how="load_encodings_to_sim"),
    Trial(tool="ort-nbits", package="onnxruntime", model="onnx", widths=(4, 8), ask=ort_nbits,
          how="MatMulNBitsQuantizer with RTN; widths in the written file"),
    Trial(tool="ort-qdq", package="onnxruntime", model="onnx", widths=(4, 8), ask=ort_qdq,
          how="quantize_static; widths in the written file"),
    Trial(tool="nncf", package="nncf", model="onnx", widths=(4, 8), ask=nncf,
          how="compress_weights, once a width; widths in the written file"),
    Trial(tool="ai-edge", package="ai-edge-quantizer", model="tflite", widths=(8, 4, 4, 2), ask=ai_edge,
          how="load_quantization_recipe, quantize; widths in the written file"),
)  # fmt: skip


def onnx_network(module: torch.nn.Sequential, path: Path) -> None:
    """The same network as an ONNX file with every node named."""
    nodes, weights, value = [], [], "x"
    for index, part in enumerate(module):
        out = "logits" if index == len(module) - 1 else f"h{index}"
        if isinstance(part, torch.nn.Linear):
            weights.append(numpy_helper.from_array(part.weight.detach().numpy().T.copy(), f"{index}.weight"))
            nodes.append(
                helper.make_node("MatMul", [value, f"{index}.weight"], [out], name=f"product{index}")
            )
        else:
            nodes.append(helper.make_node("Relu", [value], [out], name=f"relu{index}"))
        value = out
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def main() -> None:
    """Try every tool and write `results/conversions.md`."""
    module = network()
    path = Path(tempfile.mkdtemp()) / "network.onnx"
    onnx_network(module, path)
    models = {
        "torch": torch_adapter.read(module, input_shape=(WIDTH,)),
        "onnx": adapters.read(path),
        "tflite": adapters.read(TFLITE),
    }
    rows = [(find(trial.tool).TITLE, trial.package, *attempt(trial, models[trial.model])) for trial in TRIALS]
    columns = ("configuration", "tool", "version", "loaded", "layers at their width", "checked how")
    body = (
        "A plan of mixed widths for a small network, converted, and given to the tool itself.\n\n"
        + report.table(columns, rows)
    )
    report.write("conversions", "Configurations as the tools read them", body, packages=("torch", "onnx"))


def attempt(trial: Trial, model: Any) -> tuple[str, str, str, str]:
    """Version, whether it loaded, how many layers have their width, and how that was asked."""
    try:
        version = importlib.metadata.version(trial.package)
    except importlib.metadata.PackageNotFoundError:
        return "-", "not installed", "-", trial.how
    layers = model.layers()
    target = Target.of(model)
    chosen = {
        layer.name: (
            8 if layer.kind in ("patch_embed", "conv") else trial.widths[i % len(trial.widths)],
            trial.activations[i % len(trial.activations)],
        )
        for i, layer in enumerate(layers)
    }
    plan = given_plan(chosen, target, notes=())
    text, plan = convert(plan, trial.tool, model=model)
    try:
        found = trial.ask(text, model, plan)
    # A tool may fail in any way of its own; the table says how.
    except Exception as err:
        line = (str(err).strip().splitlines() or [""])[0][:80]
        return version, f"no: {type(err).__name__}: {line}", "-", trial.how
    if set(found) != set(plan.widths):
        # The tool renames what it writes; the order stays.
        found = dict(zip(plan.widths, found.values(), strict=False))
    right = sum(found.get(name) == bits for name, bits in plan.widths.items())
    return version, "yes", f"{right} of {len(plan.widths)}", trial.how


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    importlib.import_module("torchvision_ops")
    main()
