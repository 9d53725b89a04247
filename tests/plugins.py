"""Packages that announce entry points, as an installer leaves them: modules and a .dist-info folder on the path."""

from __future__ import annotations

import sys


def install(monkeypatch, folder, package, entries, modules):
    """Put a package on the path for the length of a test.

    Args:
        monkeypatch: Of the test.
        folder: Where it goes.
        package: What it is called.
        entries: Group -> name -> `module:attribute`.
        modules: Name -> source text.
    """
    place = folder / package
    info = place / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in entries.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for name, text in modules.items():
        (place / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(place))
