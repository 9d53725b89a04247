"""Sound files for `fuzzing` to damage: one or more of every kind, by kind and name."""

from pathlib import Path

import onnx
from onnx_graphs import make_plan
from onnx_models import mlp, normal, saved
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from records import make_profile
from tflite_models import fixture, plan_for

import lampq
from lampq import adapters
from lampq.conversions import FORMATS, exports, find, imports
from lampq.conversions.entry import NoPlaceError
from lampq.conversions.target import Target

DEMO = Path(lampq.__file__).parent / "demo" / "digits_vit.onnx"
# Tools whose configurations name nodes of a graph; the others name layers.
_OF_NODES = ("ort-nbits", "ort-qdq", "nncf", "aimet")


def records(folder):
    """A profile and a plan."""
    profile = make_profile()
    profile.write(folder / "profile.json")
    lampq.plan(profile, average_bits=4).write(folder / "plan.json")
    return [("profile", folder / "profile.json"), ("plan", folder / "plan.json")]


def models():
    """Float models."""
    names = ("vit", "vit_float16", "vit_partly_int8", "mobile_vit", "two_signatures")
    return [*(("tflite", fixture(name)) for name in names), ("onnx", DEMO)]


class _Noise(CalibrationDataReader):
    def __init__(self):
        self._batches = iter([{"x": normal(4, 32)}])

    def get_next(self):
        return next(self._batches, None)


def float_onnx(folder):
    """A small float model."""
    return saved(mlp(3, width=32), folder, "float.onnx")


def quantized(folder):
    """Models quantized by lampq and by ONNX Runtime."""
    source = float_onnx(folder)
    model = adapters.read(source)
    widths = dict(zip((layer.name for layer in model.layers()), (3, 4, 8), strict=True))
    lampq.apply(model, make_plan(model, widths), folder / "lampq.onnx", force=True)
    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, folder / "nbits.onnx")
    quantize_static(source, folder / "qdq.onnx", _Noise(), weight_type=QuantType.QInt8)
    vit = adapters.read(fixture("vit"))
    plan = plan_for(vit, lambda layer: 4 if layer.kind != "patch_embed" else 8)
    lampq.apply(vit, plan, folder / "int4.tflite", force=True)
    onnx_files = [("onnx-stored", folder / f"{name}.onnx") for name in ("lampq", "nbits", "qdq")]
    return [
        *onnx_files,
        ("tflite-stored", folder / "int4.tflite"),
        ("tflite-stored", fixture("vit_partly_int8")),
    ]


def configurations(folder):
    """A configuration of every tool, `TOOL.*`, with what it is for beside it, `TOOL.reference.*`."""
    return [(f"config-{tool}", _configuration(tool, folder)) for tool in FORMATS]


def _configuration(tool, folder):
    if tool == "ai-edge":
        reference = folder / f"{tool}.reference.tflite"
        reference.write_bytes(fixture("vit").read_bytes())
        target = Target.of(adapters.read(reference))
    elif tool in _OF_NODES:
        reference = float_onnx(folder).rename(folder / f"{tool}.reference.onnx")
        target = Target.of(adapters.read(reference))
    else:
        profile = make_profile()
        profile.write(folder / f"{tool}.reference.json", force=True)
        target = Target.of(profile)
    path = folder / f"{tool}.{'csv' if tool == 'csv' else 'json'}"
    path.write_text(exports.export(imports.given_plan(_widths(tool, target), target, notes=()), tool, target))
    return path


def _widths(tool, target):
    """Widths that the tool has, in turn, for all layers that it has a place for."""
    form, found = find(tool), {}
    for index, layer in enumerate(target.layers):
        try:
            form.addresses(layer, target)
        except NoPlaceError:
            continue
        bits = exports.weight_bits(form, layer, target)
        activations = form.ACTIVATION_BITS
        found[layer.name] = (bits[index % len(bits)], activations[index % len(activations)])
    return found
