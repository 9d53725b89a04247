"""Where models run: by name, what is missing in one line, and the same numbers whichever provider runs them."""

from argparse import Namespace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx_models import mlp, saved
from tflite_models import fixture
from torch_models import read_named

import lampq
from lampq.adapters.onnx import devices, read
from lampq.adapters.onnx.session import Runtime
from lampq.adapters.torch import devices as torch_devices
from lampq.adapters.torch import read as read_module
from lampq.cli import main
from lampq.console import device_flags
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.verbs.formats import read_written


@pytest.fixture
def file(tmp_path):
    return saved(mlp(), tmp_path)


def test_devices_are_providers_of_the_runtime(monkeypatch):
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert devices.providers_of("cpu") == ("CPUExecutionProvider",)
    assert devices.providers_of("cuda") == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert devices.providers_of("cuda:1") == (
        ("CUDAExecutionProvider", {"device_id": "1"}),
        "CPUExecutionProvider",
    )
    assert devices.providers_of("CUDAExecutionProvider") == devices.providers_of("cuda")


@pytest.mark.parametrize("name", ["cuda", "nonsense", "cpu:first", "tensorrt", ""])
def test_a_device_that_is_missing_is_one_line_that_lists_what_there_is(file, name):
    with pytest.raises(lampq.AdapterError, match=r"ONNX Runtime has .*cpu.* here") as caught:
        lampq.read(file, device=name)
    assert "\n" not in str(caught.value)


def test_another_provider_gives_the_same_numbers(file):
    """The runtime of the tests has one beside that of the CPU, which leaves all operators to it."""
    assert "AzureExecutionProvider" in ort.get_available_providers()
    batch = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    choices = {"bits": (2, 4, 8), "fisher_draws": 1}
    plain, other = (lampq.profile(read(file, device=name), batch, **choices) for name in ("cpu", "azure"))
    np.testing.assert_array_equal(plain.kl, other.kl)


def test_a_provider_that_does_not_start_is_one_line(file, monkeypatch):
    runtime = Runtime(name="m.onnx", providers=("AzureExecutionProvider", "CPUExecutionProvider"))
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(lampq.AdapterError, match="AzureExecutionProvider does not start here"):
        runtime.open_file(file)


@pytest.mark.parametrize("name", ["cuda:99", "xpu", "nonsense", "meta"])
def test_pytorch_lists_its_devices_too(name):
    with pytest.raises(lampq.AdapterError, match=r"device .*: PyTorch has cpu.* here"):
        torch_devices.device_of(name)


def test_gradients_in_a_lower_precision_are_nearly_those_of_float32():
    model, batch = read_named("packed")
    reference, rng = measure_reference(model, batch), np.random.default_rng(0)
    moved = {
        layer.name: ([model.weight(layer.name) + rng.normal(size=layer.shape).astype(np.float32)], [None])
        for layer in model.layers()
    }
    half = _read(model.module, "bfloat16")
    plain, lower = (
        list(one.gradient_rows(reference.inputs, moved, reference.readout, Draws(labels="exact")))
        for one in (model, half)
    )
    for name in moved:
        expected, values = (np.concatenate([part[name] for part in parts]) for parts in (plain, lower))
        assert np.linalg.norm(values - expected) < 0.05 * np.linalg.norm(expected)
        assert not np.array_equal(values, expected)


def _read(module, autocast):
    return read_module(module, input_shape=(3, 16, 16), device="cpu", autocast=autocast)


def test_an_unknown_precision_lists_those_that_there_are():
    with pytest.raises(lampq.AdapterError, match="precision 'int3' is none of bfloat16, float16"):
        _read(torch.nn.Linear(4, 4), "int3")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "cuda"], "ONNX Runtime has"),
        (["--autocast", "bfloat16"], "--autocast goes with a PyTorch model"),
    ],
)
def test_the_command_says_it_in_one_line(file, capsys, words, says):
    assert main(["inspect", str(file), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_device_can_be_named_on_the_command_line(file, capsys):
    assert main(["inspect", str(file), "--device", "cpu", "--json"]) == 0
    capsys.readouterr()


class _Elsewhere(torch.nn.Module):
    """Says what PyTorch says on a GPU of a module that makes a tensor without naming a device."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)

    def forward(self, ids):
        if ids.is_floating_point():
            raise RuntimeError("Expected tensor for argument #1 'indices' to be Long")
        raise RuntimeError(
            "Expected all tensors to be on the same device, but got index is on cpu, "
            "different from other tensors on cuda:0"
        )


def test_a_module_that_makes_tensors_on_the_cpu_is_told_where_it_runs():
    with pytest.raises(lampq.AdapterError, match=r"same device, .* take --device cpu"):
        read_module(_Elsewhere(), input_shape=(6,)).layers()


def test_what_is_written_runs_where_and_as_exactly_as_its_model(file, tmp_path):
    model = lampq.read(file, device="azure")
    batch = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    lampq.apply(
        model, lampq.plan(lampq.profile(model, batch, bits=(4,)), average_bits=4), tmp_path / "q.onnx"
    )
    again = read_written(model, tmp_path / "q.onnx").variant.opened.runtime
    assert again.providers == model.variant.opened.runtime.providers == devices.providers_of("azure")
    half = _read(read_named("packed")[0].module, "bfloat16")
    plan = lampq.plan(lampq.profile(half, read_named("packed")[1], bits=(4,)), average_bits=4)
    lampq.apply(half, plan, tmp_path / "q.safetensors")
    assert read_written(half, tmp_path / "q.safetensors").variant.runtime.autocast == torch.bfloat16


def test_a_reference_runs_where_its_model_does_as_far_as_its_format_can(file, tmp_path, monkeypatch, capfd):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 16), np.float32))
    seen = []

    def noted(path, **options):
        seen.append(options)
        return read(path, **options)

    monkeypatch.setattr(lampq.adapters, "read", noted)
    words = ["eval", file, "--reference", file, "--data", tmp_path / "x.npz", "--device", "azure"]
    assert main([str(word) for word in words]) == 0, capfd.readouterr().err
    assert seen == [{"device": "azure"}] * 2
    asked = Namespace(device="cuda", autocast="bfloat16")
    assert device_flags.of_reference(asked, str(file)) == {"device": "cuda"}
    assert device_flags.of_reference(asked, str(fixture("vit"))) == {}
