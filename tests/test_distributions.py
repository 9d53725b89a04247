"""The wheel and the sdist as people get them: built offline, installed into an empty environment, run."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from records import make_profile

import lampq

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files of the working tree that git knows or would take."""
    folder = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def build(folder, kind):
    """One distribution of a source tree, by its build backend and without a network."""
    code = f"import setuptools.build_meta as backend; print(backend.build_{kind}('dist'))"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder / "dist" / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(source):
    return build(source, "sdist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the sdist alone, as an installer without a matching wheel would."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build(unpacked, "wheel")


def test_an_environment_without_anything_else_runs_the_wheel(wheel, tmp_path):
    """As `pip install`, `uvx` and `pipx run` leave it: the package, what it requires, and its command."""
    names = zipfile.ZipFile(wheel).namelist()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert not [name for name in names if name.startswith(("tests/", "lampq/tests"))]
    make_profile(3).with_tables(logit_delta=None).write(tmp_path / "profile.json")
    (entry,) = (name for name in names if name.endswith("entry_points.txt"))
    script = re.search(r"^lampq = (\S+):(\w+)$", (tmp_path / "site" / entry).read_text(), re.M)
    code = f"import sys; from {script[1]} import {script[2]}; sys.exit({script[2]}())"
    # -P and -I keep the working tree out; the path has the wheel and what it requires.
    paths = os.pathsep.join([str(tmp_path / "site"), str(Path(sys.modules["numpy"].__file__).parents[1])])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONNOUSERSITE": "1"}

    def run(*words):
        call = [sys.executable, "-S", "-c", code, *words]
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("--version").stdout.strip() == lampq.__version__
    made = run("plan", "profile.json", "--avg-bits", "3", "-o", "plan.json")
    assert made.returncode == 0, made.stderr
    page = run("report", "plan.json", "--profile", "profile.json", "-o", "report.html")
    assert page.returncode == 0 and (tmp_path / "report.html").stat().st_size > 10_000, page.stderr


def pythons():
    """Interpreters of the versions that are supported, as far as this machine has them; this one at least."""
    # What stands in for versions that are not chosen (shims) comes last and does not run.
    folders = [*map(str, (Path.home() / ".pyenv/versions").glob("3.1[0-3].*/bin")), *os.get_exec_path()]
    names = {f"3.{minor}": f"python3.{minor}" for minor in range(10, 14)}
    known = {version: shutil.which(name, path=os.pathsep.join(folders)) for version, name in names.items()}
    own = {"{}.{}".format(*sys.version_info): sys.executable}
    return {version: path for version, path in {**known, **own}.items() if path is not None and runs(path)}


def runs(python):
    return subprocess.run([python, "--version"], capture_output=True).returncode == 0


@pytest.mark.parametrize("version", sorted(pythons()))
def test_every_python_of_this_machine_reads_the_wheel_and_shows_its_help(version, wheel, tmp_path):
    """All that can be seen without packages of that version: the help of all verbs needs none."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    python = [pythons()[version], "-I", "-S"]
    compiled = subprocess.run([*python, "-m", "compileall", "-q", tmp_path], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stdout
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from lampq.cli import main; sys.exit(main())"
    shown = subprocess.run([*python, "-c", code, "--help"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "quantize" in shown.stdout


def test_both_hold_what_they_should_and_nothing_of_the_workshop(wheel, sdist):
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "pyproject.toml", "page/explore.js", "demo/digits_vit.onnx"} <= inside
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert {"lampq/py.typed", "lampq/page/explore.js", "lampq/demo_data/tiny.tflite"} <= shipped
    assert not [name for name in shipped if name.endswith((".pyc", ".toml"))]


def test_the_version_is_said_once_in_every_place():
    stated = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert stated[1] == lampq.__version__
    assert f"## {lampq.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {lampq.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_paths_that_the_guide_for_contributors_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {word for word in re.findall(r"`([\w/.]+)`", text) if "/" in word and "NAME" not in word}
    assert len(named) > 10
    assert [
        word
        for word in sorted(named)
        if not (ROOT / word).exists() and not (ROOT / "lampq_core" / word).exists()
    ] == []
