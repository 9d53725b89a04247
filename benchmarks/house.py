"""The house in figures: lines, rooms, arrows between them, circles of imports, and what an extension touches.

    python benchmarks/house.py            # the working tree
    python benchmarks/house.py 4f2c9ed    # any commit

Read from the source alone, nothing is imported. An import under `if TYPE_CHECKING` is no dependency; one inside a
function is. A room is a folder; the core's are counted as it is installed, `lampq.core`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED = (
    *(
        "adapters",
        "console",
        "conversions",
        "demo",
        "lampq_core",
        "metrics",
        "page",
        "solvers",
        "testing",
        "verbs",
    ),
    *("__init__.py", "cli.py"),
)
# What each of five changes takes: the example that makes it, from outside, and the entry point that announces it.
EXTENSIONS = {
    "(a) a format of models": ("examples/npz_adapter.py", "lampq.formats"),
    "(b) a reading of outputs": ("examples/custom_readout.py", "lampq.roles"),
    "(c) a score": ("examples/custom_score.py", "lampq.scores"),
    "(d) a quantizer of activations": ("examples/custom_quantizer.py", "lampq.quantizers"),
    "(e) a form of weights": ("examples/custom_weights.py", "lampq.forms"),
}


def sources(commit: str | None) -> dict[str, str]:
    """Module -> source, of the package as it is installed."""
    if commit is None:
        names = _git("ls-files", *SHIPPED).split()
        text = {name: (ROOT / name).read_text(encoding="utf-8") for name in names if name.endswith(".py")}
    else:
        names = _git("ls-tree", "-r", "--name-only", commit, "--", *SHIPPED).split()
        text = {name: _git("show", f"{commit}:{name}") for name in names if name.endswith(".py")}
    return {_module(name): source for name, source in text.items()}


def imports(module: str, source: str, known: Mapping[str, str]) -> Iterator[str]:
    """Modules of the package that one depends on."""
    for node in _runtime(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                target = name if name in known else node.module
                if target in known and target != module:
                    yield target


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that depend on each other."""
    reach = {module: _reachable(module, arrows) for module in arrows}
    groups = {
        frozenset({module, *(other for other in reach[module] if module in reach[other])})
        for module in arrows
    }
    return sorted(sorted(group) for group in groups if len(group) > 1)


def room(module: str) -> str:
    """The folder that a module is in; rooms of the core have their sub-folders."""
    return ".".join(module.split(".")[:-1][:3]) or module


def table(known: Mapping[str, str]) -> list[str]:
    """The figures as lines of a table."""
    arrows = {module: set(imports(module, source, known)) for module, source in known.items()}
    lines = {module: source.count("\n") for module, source in known.items()}
    between = {
        (room(one), room(other)) for one in arrows for other in arrows[one] if room(one) != room(other)
    }
    core = {pair for pair in between if all(r.startswith("lampq.core.") for r in pair)}
    both = {pair for pair in core if pair[::-1] in core}
    adapters = [m for m in known if m.startswith("lampq.adapters")]
    formats = [m for m in adapters if not m.startswith("lampq.adapters.data")]
    found = circles(arrows)
    return [
        f"| files | {len(known)} |",
        f"| lines | {sum(lines.values()):,} |",
        f"| lines of adapters, without data | {sum(lines[m] for m in formats):,} |",
        f"| longest file | {max(lines.values())} ({max(lines, key=lambda m: lines[m])}) |",
        f"| rooms | {len({room(m) for m in known})}, of the core {len({room(m) for m in known if '.core.' in m})} |",
        f"| arrows between rooms | {len(between)}, in the core {len(core)}, of these both ways {len(both) // 2} |",
        f"| circles of imports | {len(found)}{''.join(f'; {len(c)} files: {c[0]} …' for c in found)} |",
    ]


def extensions() -> Iterator[str]:
    """What each change touches: one file of one's own, and the line that announces it."""
    for change, (example, group) in EXTENSIONS.items():
        source = (ROOT / example).read_text(encoding="utf-8")
        used = set(lampq_imports(source))
        private = sorted(m for m in used if any(part.startswith("_") for part in m.split(".")))
        count = source.count("\n")
        yield f"| {change} | {example} ({count} lines) | 1, `{group}` | {len(private)} |"


def lampq_imports(source: str) -> Iterator[str]:
    """Names of lampq that a script imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lampq"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _runtime(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in node.orelse if isinstance(node, ast.If) and typing else (node,):
            yield child
            yield from _runtime(child)


def _reachable(module: str, arrows: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    stack = list(arrows[module])
    while stack:
        other = stack.pop()
        if other not in reached:
            reached.add(other)
            stack.extend(arrows[other])
    return reached


def _module(path: str) -> str:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    name = name.replace("lampq_core", "core").replace(
        "demo", "demo_data", 1 if name.startswith("demo") else 0
    )
    return "lampq" if name == "__init__" else f"lampq.{name}"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main() -> None:
    commit = sys.argv[1] if len(sys.argv) > 1 else None
    print("\n".join(["| | " + (commit or "working tree") + " |", "|---|---|", *table(sources(commit))]))
    if commit is None:
        print("\n| change | file of one's own | lines elsewhere | private names used |\n|---|---|---|---|")
        print("\n".join(extensions()))


if __name__ == "__main__":
    main()
