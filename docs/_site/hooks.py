"""The documents as a site: those outside of docs/ join in, and links to code become the code's path.

Documents link each other as files of the repository, where they are read too; a site has pages alone.
"""

import posixpath
import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# Documents outside of docs/ -> their pages.
BESIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "examples/README.md": "examples.md",
    **{f"benchmarks/results/{path.name}": f"results/{path.name}" for path in (ROOT / "benchmarks/results").glob("*.md")},
}
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s:#]+)(?P<place>#[^)\s]*)?\)")


# The reference reads docstrings from a folder that is laid out as the package is installed.
PACKAGE = ROOT / "build/package/lampq"
NAMES = {"lampq_core": "core", "demo": "demo_data"}


def on_startup(**_):
    shutil.rmtree(PACKAGE, ignore_errors=True)
    PACKAGE.mkdir(parents=True)
    for path in (ROOT / "__init__.py", ROOT / "cli.py", *(path.parent for path in ROOT.glob("*/__init__.py"))):
        (PACKAGE / NAMES.get(path.name, path.name)).symlink_to(path)


def on_files(files, config):
    for source, page in BESIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, **_):
    uri = page.file.src_uri
    source = next((path for path, name in BESIDE.items() if name == uri), f"docs/{uri}")
    return _LINK.sub(lambda link: _link(link, source, uri), markdown).replace('src="docs/', 'src="')


def _link(link, source, uri):
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
    page = BESIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") and path.endswith(".md") else None)
    if page is None:
        return f"{link['text']} (`{path}`)" if link["text"].strip("`") != path else f"`{path}`"
    return f"[{link['text']}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{link['place'] or ''})"
