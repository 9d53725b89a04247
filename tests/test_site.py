"""The documents as a site: built strictly, complete, and with a reference of everything public."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lampq
from lampq.core.values.errors import LampqError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Whatever a page links to and is not there fails this."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_every_document_is_a_page(site):
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / path.stem / "index.html").is_file(), path.name
    for page in ("changelog", "contributing", "examples", "results/modelopt"):
        assert (site / page / "index.html").is_file(), page
    assert 'href="which-command/' in (site / "index.html").read_text(encoding="utf-8")


def test_the_reference_describes_what_the_library_offers(site):
    text = (site / "reference/index.html").read_text(encoding="utf-8")
    described = {name.rpartition(".")[2] for name in re.findall(r'id="(lampq\.[\w.]+)"', text)}
    functions = {
        name
        for name in lampq.__all__
        if callable(value := getattr(lampq, name)) and not isinstance(value, type)
    }
    errors = {name for name in lampq.__all__ if name.endswith("Error")}
    assert issubclass(lampq.PlanError, LampqError) and errors <= described
    assert functions - described <= {"demo", "schema", "load_quantized", "synthetic"}


def test_pages_load_nothing_from_elsewhere(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', text)
    assert loaded == []
