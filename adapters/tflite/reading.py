"""Read TFLite models."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.tflite import interface
from lampq.adapters.tflite.backend import TfliteBackend, TfliteModel
from lampq.adapters.tflite.flatbuffer import IDENTIFIER
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.tflite.heads import inferred
from lampq.adapters.tflite.opened import Opened
from lampq.adapters.tflite.requantize import as_floats
from lampq.adapters.tflite.variant import Variant
from lampq.adapters.tflite.weights import survey
from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError, RecordError


def read(
    path: str | Path,
    *,
    signature: str | None = None,
    kinds: Mapping[str, str] | None = None,
    requantize: bool = False,
) -> TfliteModel:
    """Read a TFLite model. Nothing is run and no runtime is needed until the model is.

    Args:
        path: The .tflite file; it is mapped into memory, not copied.
        signature: The signature to run; None takes `serving_default`, else the first.
        kinds: Pattern -> kind for layers whose kind the names do not tell.
        requantize: Whether weights that are quantized already are layers too, by their rounded values. Operators that
            compute with codes compute with numbers then, which lie where the file has rounded them to.

    Raises:
        AdapterError: The file is missing, damaged or no TFLite model, or has no such signature.
    """
    path = Path(path)
    data = _map(path)
    if bytes(data[4:8]) != IDENTIFIER:
        raise AdapterError(f"{path} is no TFLite model: bytes 4 to 8 are not {IDENTIFIER.decode()}")
    try:
        graph, content = Graph(data), data
        floats = as_floats(graph) if requantize else None
        if floats is not None:
            graph, content = Graph(floats), floats
        ports = interface.find(graph, signature)
        weights = survey(graph, ports.subgraph, kinds, requantize=requantize)
        opened = Opened(path, data, content, graph, ports, weights)
        specs = [port.spec for port in ports.inputs]
        judgement = inferred(opened.outputs, specs, path.name)
    except (AdapterError, RecordError) as err:
        raise AdapterError(f"{path}: {err}") from err
    return BackedModel(TfliteBackend(Variant(opened, judgement)))


def _map(path: Path) -> Any:
    if path.is_dir():
        raise AdapterError(f"{path} is a folder, not a .tflite file")
    try:
        with open_regular(path) as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as err:
        raise AdapterError(f"{path}: no such file") from err
    except (OSError, ValueError) as err:
        raise AdapterError(f"{path} cannot be read: {getattr(err, 'strerror', None) or err}") from err
