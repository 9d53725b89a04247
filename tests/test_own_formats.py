"""Model formats that are not lampq's own: registered while the program runs, or announced by packages."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from held_out_kl import by_quarters
from numpy_model import NumpyModel
from plugins import install

import lampq
from lampq import adapters
from lampq.adapters import MODEL_FORMATS, ModelFormat, format_named, format_of
from lampq.cli import main
from lampq.core.values.errors import AdapterError, LampqError, MissingExtraError, RecordError
from lampq.verbs.formats import read_written, refuse_model_clashes

EXAMPLE = Path(__file__).parent.parent / "examples/npz_adapter.py"
GROUP = "lampq.formats"
SOURCE = """
from lampq.adapters import ModelFormat

def read(path, **options):
    return f"read {path}"

OWN = ModelFormat(name="own", endings=(".own",), read=read)
"""
FRAMEWORKS = {"onnx", "onnx_ir", "onnxruntime", "torch", "safetensors", "flatbuffers", "ai_edge_litert"}


@pytest.fixture
def no_more_formats(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(MODEL_FORMATS, "_added", {})


def network(path):
    rng = np.random.default_rng(0)
    with path.open("wb") as handle:
        arrays = {"first": rng.normal(size=(24, 16)), "head": rng.normal(size=(4, 24))}
        np.savez(handle, **{name: array.astype(np.float32) for name, array in arrays.items()})
    return path


def announce(monkeypatch, folder, package="lampq-own", module="own_format", source=SOURCE, name="own"):
    install(monkeypatch, folder, package, {GROUP: {name: f"{module}:OWN"}}, {module: source})


def test_a_registered_format_goes_through_all_verbs_by_its_ending(no_more_formats, tmp_path):
    spec = importlib.util.spec_from_file_location("npz_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model = lampq.read(network(tmp_path / "x.npznet"))
    images = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    plan = lampq.quantize(model, images, tmp_path / "q.npznet", average_bits=4, rounds=1)

    def damage(fitted, judged):
        file = lampq.apply(model, plan, tmp_path / "half.npznet", batch=images[fitted], force=True)
        return lampq.evaluate(lampq.read(file.path), images[judged], reference=model).kl

    assert plan.measured_kl == pytest.approx(by_quarters(len(images), damage))
    assert lampq.inspect(tmp_path / "q.npznet").facts["format"] == "npz"
    with pytest.raises(AdapterError, match=r"written as \.npznet; name such a file"):
        lampq.apply(model, plan, tmp_path / "q.npz")


def test_an_announced_format_goes_through_the_command_line(no_more_formats, monkeypatch, tmp_path, capsys):
    source = EXAMPLE.read_text(encoding="utf-8").replace("register(NPZ)", "")
    install(monkeypatch, tmp_path, "lampq-npz", {GROUP: {"npz": "npz_plugin:NPZ"}}, {"npz_plugin": source})
    model = network(tmp_path / "x.npznet")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32))
    profile, plan, out = (str(tmp_path / name) for name in ("profile.json", "plan.json", "q.npznet"))
    data = ["--data", str(tmp_path / "data.npz"), "--fisher-draws", "0", "--bits", "2,4,8"]
    assert main(["profile", str(model), *data, "--quiet", "-o", profile]) == 0
    assert main(["plan", profile, "--avg-bits", "4", "--quiet", "-o", plan]) == 0
    assert main(["apply", str(model), plan, "--quiet", "-o", out]) == 0
    assert Path(out).stat().st_size < model.stat().st_size


def test_no_package_is_asked_for_formats_of_lampq(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path, source="raise RuntimeError")
    (tmp_path / "x.onnx").write_bytes(b"")
    assert format_of(tmp_path / "x.onnx").name == "onnx"
    assert format_of("package.module:build").name == "torch"
    assert "own_format" not in sys.modules


def test_a_format_that_fails_to_import_is_named_and_the_others_work(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path)
    broken = {GROUP: {"broken": "broken_format:BROKEN"}}
    install(monkeypatch, tmp_path, "lampq-broken", broken, {"broken_format": "import not_there"})
    (tmp_path / "x.own").write_bytes(b"")
    (tmp_path / "x.strange").write_bytes(b"")
    assert lampq.read(tmp_path / "x.own") == f"read {tmp_path / 'x.own'}"
    with pytest.raises(AdapterError, match=r"no known format.*\.own or a Hugging Face folder") as caught:
        lampq.read(tmp_path / "x.strange")
    assert (
        "'broken' of lampq-broken 1.0 cannot be loaded (ModuleNotFoundError: No module named 'not_there')"
        in (str(caught.value))
    )
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_format_are_refused(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path)
    announce(monkeypatch, tmp_path, package="lampq-rival", module="rival_format")
    (tmp_path / "x.own").write_bytes(b"")
    with pytest.raises(
        AdapterError, match=r"'own' is announced by .*lampq-rival 1\.0.*uninstall all but one"
    ):
        lampq.read(tmp_path / "x.own")


def test_two_formats_of_one_ending_are_refused(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path)
    rival = SOURCE.replace('"own"', '"rival"')
    announce(monkeypatch, tmp_path, package="lampq-rival", module="rival_format", source=rival, name="rival")
    (tmp_path / "x.own").write_bytes(b"")
    with pytest.raises(AdapterError, match=r"claimed by several formats: (own, rival|rival, own)"):
        lampq.read(tmp_path / "x.own")


def test_formats_are_told_by_content_and_as_folders(no_more_formats, tmp_path):
    adapters.register(
        ModelFormat(
            name="magic", read=str, detect=lambda path, head: head.startswith(b"MAGIC") or path.is_dir()
        )
    )
    (tmp_path / "x").write_bytes(b"MAGIC and more")
    assert format_of(tmp_path / "x").name == "magic"
    assert format_of(tmp_path).name == "magic"
    with pytest.raises(AdapterError, match="no such file"):
        format_of(tmp_path / "y")


def test_a_format_is_registered_again_and_none_of_lampq_replaced(no_more_formats, tmp_path):
    first, second = (ModelFormat(name="own", endings=(".own",), read=str) for _ in range(2))
    adapters.register(first)
    adapters.register(second)
    assert format_named("own") is second
    with pytest.raises(AdapterError, match="'onnx' is one of lampq; choose another name"):
        adapters.register(ModelFormat(name="onnx", read=str))
    with pytest.raises(AdapterError, match="str given as a model format; make a ModelFormat of it"):
        adapters.register("own")


@pytest.mark.parametrize(
    "fields", [{"name": ""}, {"endings": ("own",)}, {"written": (".OWN",)}, {"addresses": "wires"}]
)
def test_formats_that_cannot_be_are_refused(fields):
    with pytest.raises(RecordError):
        ModelFormat(**{"name": "own", "read": str, **fields})


def test_models_of_no_known_format_are_written_as_they_like(tmp_path):
    model = NumpyModel.random()
    form = format_named(model.format)
    assert (form.name, form.endings, form.exports, form.folder) == ("numpy", (), {}, None)
    refuse_model_clashes(model, tmp_path / "out.anything", force=False)
    with pytest.raises(LampqError, match="nothing here reads this format"):
        form.read("x")


def test_what_was_written_is_read_the_way_of_its_format(no_more_formats):
    model = NumpyModel.random()
    again = {Path("x"): NumpyModel.random(1)}
    form = ModelFormat(name="numpy", read=str, reread=lambda model, path: again[path])
    adapters.register(form)
    assert read_written(model, Path("x")) is again[Path("x")]
    adapters.register(dataclasses.replace(form, reread=None, endings=(".own",)))
    with pytest.raises(AdapterError, match="no such file"):
        read_written(model, Path("x.own"))


def test_a_missing_package_is_named_with_its_extra():
    form = ModelFormat(name="own", read=str, extra="onnx", packages={"not_there": "not-there"})
    with pytest.raises(MissingExtraError, match=r"not-there.*lampq\[onnx\]"), form.importing():
        import not_there.deeper  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="not_here"), form.importing():
        import not_here  # noqa: F401


def test_records_of_all_formats_load_no_framework():
    code = (
        "import sys\nfrom lampq.adapters import MODEL_FORMATS, format_of\n"
        "assert set(MODEL_FORMATS.loaded) == {'onnx', 'tflite', 'torch'}\n"
        "import lampq.verbs.formats, lampq.verbs.apply, lampq.conversions.modules, lampq.console.arguments\n"
        "format_of('a.b:c')\nprint(*{name.partition('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & FRAMEWORKS
