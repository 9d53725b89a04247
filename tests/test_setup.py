"""What `make test` brings by itself: packages, and a browser from the distribution, with root and without."""

import contextlib
import importlib.metadata
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "requirements/chromium.sh"
DEBIAN_12 = {"python_version": "3.11", "python_full_version": "3.11.2"}
TOOLS = ("sh", "env", "mkdir", "rm", "find", "dirname", "sort", "paste", "cat", "chmod", "cp", "touch")
APT = """echo "apt-get $*" >> "$LOG"
for word in "$@"; do
  case $word in Dir::Cache=*) touch "${word#Dir::Cache=}/archives/chromium_1_amd64.deb";; esac
done"""
# --extract PACKAGE FOLDER
UNPACK = """mkdir -p "$3/usr/lib/chromium" "$3/usr/lib/deep"
touch "$3/usr/lib/deep/libx.so.1"
printf '#!/bin/sh\\necho "$LD_LIBRARY_PATH|$FONTCONFIG_FILE|$*"' > "$3/usr/lib/chromium/chromium"
chmod +x "$3/usr/lib/chromium/chromium\""""


@pytest.fixture
def machine(tmp_path):
    """A folder of programs, and nothing else on the path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def add(machine, name, text):
    path = machine / "programs" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def bring(machine):
    """Run the script: its exit status, what it says, and the commands of apt that it ran."""
    values = {"PATH": str(machine / "programs"), "LOG": str(machine / "log")}
    run = subprocess.run(["sh", SCRIPT, "venv"], cwd=machine, env=values, capture_output=True, text=True)
    log = machine / "log"
    return run.returncode, run.stderr, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("place", ["programs/chromium", "programs/google-chrome", "venv/bin/chromium"])
def test_nothing_is_done_where_there_is_a_browser(place, machine):
    add(machine, "apt-get", APT)
    add(machine, f"../{place}", "")
    assert bring(machine) == (0, "", "")


def test_without_a_distribution_one_line_says_what_to_do(machine):
    code, said, _ = bring(machine)
    assert (code, said.count("\n")) == (2, 1)
    assert "install Chromium by hand" in said


@pytest.mark.parametrize("sudo", [False, True])
def test_with_root_it_is_installed(sudo, machine):
    add(machine, "id", "echo 1000" if sudo else "echo 0")
    add(machine, "apt-get", APT)
    if sudo:
        add(machine, "sudo", 'echo sudo >> "$LOG"; [ "$1" = -n ] && shift; "$@"')
        (machine / "programs/true").symlink_to(shutil.which("true"))
    code, said, log = bring(machine)
    assert (code, said) == (0, "")
    assert log.rstrip().endswith("install -y -qq --no-install-recommends chromium")
    assert ("sudo" in log) == sudo
    assert not (machine / "venv/chromium").exists()


def test_without_root_it_is_unpacked_and_started_with_libraries_and_fonts_of_its_own(machine):
    add(machine, "id", "echo 1000")
    add(machine, "apt-get", APT)
    add(machine, "dpkg-deb", UNPACK)
    code, said, log = bring(machine)
    assert (code, said) == (0, "")
    assert all("Dir::State" in line for line in log.splitlines())
    run = subprocess.run([machine / "venv/bin/chromium", "a b", "c"], capture_output=True, text=True, env={})
    libraries, fonts, words = run.stdout.strip().split("|")
    root = machine / "venv/chromium"
    assert libraries.split(os.pathsep) == [str(root / "usr/lib/deep")]
    assert "usr/share/fonts" in Path(fonts).read_text()
    assert words == "a b c"
    assert not (root / "cache").exists()
    assert bring(machine)[0] == 0


def test_a_distribution_that_fails_is_a_failure(machine):
    add(machine, "id", "echo 1000")
    add(machine, "apt-get", "echo 'E: no network' >&2; exit 100")
    code, said, _ = bring(machine)
    assert (code, said) == (100, "E: no network\n")
    assert not (machine / "venv/bin/chromium").exists()


def pins():
    """Requirements of all files that `make test` installs."""
    for path in sorted((ROOT / "requirements").glob("d*.txt")):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-r ")):
                yield Requirement(line)


def test_every_pin_installs_on_the_python_of_debian_12():
    refused = []
    for pin in pins():
        if pin.marker is not None and not pin.marker.evaluate(DEBIAN_12):
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            package = importlib.metadata.distribution(pin.name)
            needed = SpecifierSet(package.metadata.get("Requires-Python") or "")
            if (
                str(pin.specifier) == f"=={package.version}"
                and DEBIAN_12["python_full_version"] not in needed
            ):
                refused.append(f"{pin} needs Python {needed}")
    assert refused == []
