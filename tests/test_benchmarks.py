"""Benchmarks are run by hand, months apart: what they import and call must be there all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
# Peers that are installed apart, in environments of their own.
PEERS = ("modelopt", "ai_edge_quantizer")
# Imported one after the other, as if each were a script, but not run.
IMPORT = f"""
import runpy, sys
sys.path[:0] = {[str(BENCHMARKS), str(ROOT / "tests")]!r}
for path in sys.argv[1:]:
    try:
        runpy.run_path(path, run_name="imported")
    except ModuleNotFoundError as err:
        if err.name.partition(".")[0] not in {PEERS!r}:
            raise
        print(path)
"""


@pytest.fixture(scope="module")
def scripts():
    return sorted(str(path) for path in BENCHMARKS.rglob("*.py"))


def test_every_benchmark_imports(scripts):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT, *scripts], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    without = {Path(line).stem for line in run.stdout.split("\n") if line.endswith(".py")}
    assert without <= {"auto_quantize", "quantizers", "searches", "tflite_recipe"}


def test_a_module_that_is_gone_fails_the_import(tmp_path):
    script = tmp_path / "rotten.py"
    script.write_text("from lampq.core.values.batch import Batches\n")
    run = subprocess.run([sys.executable, "-c", IMPORT, str(script)], capture_output=True, text=True)
    assert "cannot import name 'Batches'" in run.stderr
