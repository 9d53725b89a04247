"""The documents tell the truth: their commands and code run, their links lead somewhere, their functions exist."""

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import warm_cli
from PIL import Image
from tflite_models import fixture

import lampq
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, VALIDATION_PATH

ROOT = Path(__file__).parent.parent
EXAMPLES = {
    "npz_adapter", "onnx_from_scratch", "latency_table", "many_machines", "custom_score", "custom_readout",
    "custom_quantizer", "custom_weights", "torch_vit", "notebook", "point_cloud", "video",
}  # fmt: skip
DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
# Languages whose blocks run, and those that are only shown.
RUN, SHOWN = ("python", "sh"), ("text", "csv", "json")
# Small models gain nothing from a second thread, and tests run side by side.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# What a document makes itself, and must not find there.
MADE = {"README.md": ("profile.json", "plan.json"), "docs/formats.md": ("plan.json",)}
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def blocks(document):
    """(language, code, reason not to run it or None) of every block between fences."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [(match["language"], match["code"], match["reason"]) for match in BLOCK.finditer(text)]
    assert len(found) == text.count("\n```") / 2, f"{document}: a block that this test cannot read"
    return found


def save_images(source, folder, most):
    """Images of the demo as PNG files in a folder for each class."""
    with np.load(source) as data:
        images, labels = data["x"][:most], data["y"][:most]
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.reshape(image.shape[-2:]).astype(np.uint8)).save(place / f"{index}.png")


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """What the documents take for given: models, images, a profile and a plan."""
    folder = tmp_path_factory.mktemp("materials")
    shutil.copy(MODEL_PATH, folder / "vit.onnx")
    shutil.copy(fixture("vit"), folder / "vit.tflite")
    save_images(CALIBRATION_PATH, folder / "calib", 16)
    save_images(VALIDATION_PATH, folder / "val", 16)
    # The TFLite model takes other images than the ONNX model.
    rng = np.random.default_rng(0)
    for name in ("calib", "val"):
        np.savez(folder / f"{name}.npz", x=rng.normal(size=(16, 3, 16, 16)).astype(np.float32))
    model = lampq.read(folder / "vit.onnx")
    images = lampq.read_data(folder / "calib", input_specs=model.input_specs).inputs()
    profile = lampq.profile(model, images, bits=(2, 3, 4, 8), fisher_draws=0)
    profile.write(folder / "profile.json")
    lampq.plan(profile, average_bits=3, mode="kl").write(folder / "plan.json")
    return folder


# Runs the blocks of a document in order; what one Python block defines the next ones may use.
DRIVER = """
import json, pathlib, subprocess
names = {"__name__": "__main__"}
for number, (language, code) in enumerate(json.loads(pathlib.Path("blocks.json").read_text()), start=1):
    if language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    else:
        exec(compile(code, f"block {number}", "exec"), names)
"""


@pytest.fixture(scope="module")
def programs():
    """A folder with a `lampq` that is warm."""
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="lampq") as folder, warm_cli.started(folder, ONE_THREAD):
        yield folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_blocks_run(document, materials, programs, tmp_path):
    found = [
        (language, code) for language, code, reason in blocks(document) if language in RUN and reason is None
    ]
    if not found:
        return
    workplace = tmp_path / "work"
    made = MADE.get(document, ())
    shutil.copytree(materials, workplace, ignore=lambda _, names: [name for name in names if name in made])
    (workplace / "blocks.json").write_text(json.dumps(found), encoding="utf-8")
    path = os.pathsep.join((programs, str(Path(sys.executable).parent), os.environ["PATH"]))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        cwd=workplace,
        env={**os.environ, "PATH": path, **ONE_THREAD},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"{document}: {run.stderr[-2000:]}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_name_their_language(document):
    assert {language for language, _, _ in blocks(document)} <= {*RUN, *SHOWN}


@pytest.mark.parametrize("document", (*DOCUMENTS, "examples/README.md", "demo/README.md"))
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for match in LINK.finditer(text):
        target = match["target"].replace("\\", "")
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert ((ROOT / document).parent / target.partition("#")[0]).exists(), target


def test_every_function_of_the_method_exists():
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:core|solvers)\.[\w.]+)`", text)
    assert len(names) > 40
    for name in names:
        assert pkgutil.resolve_name(f"lampq.{name}") is not None


def test_the_adapter_of_the_document_is_the_example():
    example = (ROOT / "examples/npz_adapter.py").read_text(encoding="utf-8")
    code = next(code for language, code, _ in blocks("docs/adapters.md") if language == "python")
    assert code.rstrip() == example[example.index("from __future__") : example.index("def main()")].rstrip()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_run(name, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / f"examples/{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"`{name}.py`" in (ROOT / "examples/README.md").read_text(encoding="utf-8")


def test_every_example_is_listed_and_run_or_trains():
    # Training takes minutes; tests/test_demo_assets.py looks at one, benchmarks/tasks.py at the other.
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {
        *EXAMPLES,
        "train_digits_vit",
        "train_shapes_detector",
    }


def test_the_two_commands_of_the_readme_do_all_that_ci_does():
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make demo", "make test"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"\n{command} " in readme for command in commands)
