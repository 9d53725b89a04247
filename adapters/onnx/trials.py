"""Run a graph, or a file that was written, once: whole, or a large one piece by piece."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.onnx import pieces, save
from lampq.adapters.onnx.container import Container, one_line
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.session import to_value
from lampq.adapters.onnx.variant import Variant
from lampq.core.values.errors import AdapterError

Arrays = Mapping[str, np.ndarray]

# Models with more bytes of float weights are run piece by piece.
WHOLE_BYTES = 1 << 27

# Graphs with more bytes of tensors are run from a data file.
_SINGLE_FILE_BYTES = 1 << 24


def run_graph(
    variant: Variant, graph: ir.Model, names: Sequence[str], feed: Arrays, folder: Path
) -> dict[str, np.ndarray]:
    """Values of a graph for one feed.

    A large one is run piece by piece; another is written to a temporary folder in `folder`, its tensors one by one.

    Args:
        variant: The model that it was made of.
        graph: The graph.
        names: Its outputs or inner tensors.
        feed: All inputs by name.
        folder: Where there is room.

    Raises:
        AdapterError: The runtime cannot run it.
    """
    if is_large(variant.opened):
        return pieces.run(graph, variant.opened.runtime, names, feed, prepack=False)
    with tempfile.TemporaryDirectory(dir=folder) as inner, _giving(graph, names):
        path = Path(inner) / "reference.onnx"
        with save.staged(graph, path, single_file_bytes=_SINGLE_FILE_BYTES) as file:
            return _run(variant, file, names, feed)


def run_file(variant: Variant, file: Path, names: Sequence[str], feed: Arrays) -> dict[str, np.ndarray]:
    """Values of a file for one feed.

    A large file is read as it lies on disk, held against the rules of ONNX, and run piece by piece: a session of the
    whole, which others will open, is not.

    Raises:
        AdapterError: It is no valid model, or the runtime cannot run it.
    """
    graph = Container(file).parse()
    if is_large(variant.opened):
        _check_rules(graph, file)
        return pieces.run(graph, variant.opened.runtime, names, feed)
    if {value.name for value in graph.graph.outputs} >= set(names):
        return _run(variant, file, names, feed)
    # The file does not give inner tensors: a copy that does is run.
    return run_graph(variant, graph, names, feed, file.parent)


def _run(variant: Variant, file: Path, names: Sequence[str], feed: Arrays) -> dict[str, np.ndarray]:
    runtime = variant.opened.runtime
    session = runtime.open_file(file)
    values = runtime.run(session, names, {name: to_value(array) for name, array in feed.items()})
    return {name: np.array(value.numpy()) for name, value in zip(names, values, strict=True)}


@contextlib.contextmanager
def _giving(graph: ir.Model, names: Sequence[str]) -> Iterator[None]:
    """A graph with inner tensors among its outputs, while the block lasts."""
    outputs = graph.graph.outputs
    known = {value.name for value in outputs}
    added = [v for node in graph.graph for v in node.outputs if v.name in set(names) - known]
    outputs.extend(added)
    yield
    for value in added:
        outputs.remove(value)


def _check_rules(written: ir.Model, file: Path) -> None:
    """That a file is a valid model, weights apart.

    Raises:
        AdapterError: It is none.
    """
    try:
        passes.CheckerPass()(written)
    except onnx.checker.ValidationError as err:
        raise AdapterError(f"the quantized {file.name} is no valid ONNX model: {one_line(err)}") from err


def is_large(opened: Opened) -> bool:
    """Whether the weights of a file are not to be in memory more often than need be."""
    return opened.container.size_bytes > WHOLE_BYTES
