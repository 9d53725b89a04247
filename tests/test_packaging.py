"""What ships, what loads, and which way imports point."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "core": "lampq_core",
    "solvers": "solvers",
    "adapters": "adapters",
    "conversions": "conversions",
    "metrics": "metrics",
    "page": "page",
    "verbs": "verbs",
    "console": "console",
    "testing": "testing",
}
# Each package may import those below it, never those above.
ALLOWED = {
    "core": set(),
    "solvers": {"core"},
    "adapters": {"core"},
    "conversions": {"core", "adapters"},
    "metrics": {"core", "adapters"},
    "page": {"core"},
    "verbs": {"core", "solvers", "adapters", "conversions", "metrics", "page"},
    "console": {"core", "solvers", "adapters", "conversions", "metrics", "verbs"},
    # Laws are of the protocol, whatever adapter there is.
    "testing": {"core"},
}


def imported_by(statement):
    code = f"import sys; {statement}; print('\\n'.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


FOREIGN = {
    "rich",
    "scipy",
    "mip",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "torch",
    "PIL",
    "matplotlib",
    "safetensors",
    "flatbuffers",
    "pycocotools",
    "pyarrow",
}


def test_importing_the_library_loads_numpy_alone():
    loaded = imported_by(
        "import lampq, lampq.core.values.profile, lampq.core.searching.why, lampq.core.allocating.allocation"
    )
    assert "numpy" in loaded
    assert not loaded & FOREIGN


def test_planning_from_a_profile_loads_numpy_alone():
    loaded = imported_by(
        "import lampq; lampq.plan, lampq.sweep, lampq.read, lampq.profile, lampq.evaluate, lampq.apply"
    )
    assert not loaded & FOREIGN


def test_the_check_of_loaded_modules_can_fail():
    assert "scipy" in imported_by("import lampq, scipy") & FOREIGN


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    for path in (ROOT / PACKAGES[package]).rglob("*.py"):
        for module in imports_of(path):
            parts = module.split(".")
            if parts[0] == "lampq" and len(parts) > 1 and parts[1] in PACKAGES:
                assert parts[1] == package or parts[1] in ALLOWED[package], f"{path} imports {module}"
            if package == "core":
                assert parts[0] in {"lampq", "numpy", *sys.stdlib_module_names}, f"{path} imports {module}"


# The rooms of the core, from the ground up: each may import those before it.
ROOMS = ("values", "quantizing", "treatments", "readouts", "measuring", "allocating", "searching", "planning")


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_core_import_those_below_alone(room):
    below = ROOMS[: ROOMS.index(room) + 1]
    for path in (ROOT / "lampq_core" / room).glob("*.py"):
        for module in imports_of(path):
            if module.startswith("lampq."):
                assert module.split(".")[:2] == ["lampq", "core"] and module.split(".")[2] in below, (
                    f"{path}: {module}"
                )


def test_the_core_has_no_other_rooms():
    assert {path.name for path in (ROOT / "lampq_core").iterdir()} - {"__pycache__"} == {
        "__init__.py",
        *ROOMS,
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree."""
    tmp_path = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, str(source)], check=True)
    (built,) = tmp_path.glob("*.whl")
    return built


def test_every_package_ships(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"lampq", next(name for name in top if name.endswith(".dist-info"))}
    shipped = {name for name in names if name.endswith(".py")}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            assert f"lampq/{package}/{path.relative_to(ROOT / folder)}" in shipped
    assert "lampq/py.typed" in names
    assert {"lampq/page/style.css", "lampq/page/script.js"} <= set(names)
    assert {f"lampq/core/values/schemas/{name}.schema.json" for name in ("plan", "profile")} <= set(names)
    assert {name for name in shipped if name.count("/") == 1} == {"lampq/__init__.py", "lampq/cli.py"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="NumPy is pinned, and with it its types, from 3.11 on")
def test_types_agree_across_the_whole_package(wheel, tmp_path):
    """Checked as installed: in the working tree the packages have other names."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    check = [
        *(sys.executable, "-m", "mypy", "--package", "lampq"),
        *("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")),
    ]
    run = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="NumPy is pinned, and with it its types, from 3.11 on")
def test_benchmarks_use_what_the_package_has(wheel, tmp_path):
    """They run by hand, months apart; their types may be loose, but what they name and call must be there."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    scripts = tmp_path / "benchmarks"
    shutil.copytree(ROOT / "benchmarks", scripts)
    names = sorted(str(path.relative_to(scripts)) for path in scripts.rglob("*.py"))
    check = [
        *(sys.executable, "-m", "mypy", "--check-untyped-defs", "--explicit-package-bases", *names),
        *("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")),
    ]
    paths = os.pathsep.join(map(str, (tmp_path, scripts, ROOT / "tests")))
    run = subprocess.run(
        check, cwd=scripts, capture_output=True, text=True, env={**os.environ, "MYPYPATH": paths}
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    gone = re.compile(r"^(?!/).*\[(attr-defined|call-arg|name-defined|import-not-found)\]$", re.M)
    assert not gone.search(run.stdout), "\n".join(match[0] for match in gone.finditer(run.stdout))
