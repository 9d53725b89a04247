"""Read an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.onnx import flow, roles, sites
from lampq.adapters.onnx.container import Container, one_line, silence
from lampq.adapters.onnx.engine import Opened
from lampq.adapters.onnx.model import OnnxModel
from lampq.adapters.onnx.session import Runtime
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.input_spec import InputSpec


def read(
    path: str | Path,
    *,
    kinds: Mapping[str, str] | None = None,
    output: str | None = None,
    embeddings: bool = False,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    threads: int | None = None,
) -> OnnxModel:
    """Read an ONNX file; weights stay in it until they are asked for.

    Args:
        path: The .onnx file, trusted or not: no file outside its folder is read.
        kinds: Layer kinds to set, by glob or `re:` pattern over layer names; they win over what names say.
        output: The output that holds the logits, where it is not `logits` and not the first with two axes.
        embeddings: Whether embedding tables count as layers.
        providers: ONNX Runtime's execution providers, best first.
        threads: Threads of one operator; None leaves it to ONNX Runtime.

    Returns:
        The model. One without quantizable weights can be run; its `layers()` raises.

    Raises:
        AdapterError: The file is missing, damaged, no ONNX, refers to data outside its folder, or needs more
            than one input.
    """
    path = Path(path)
    container = Container(path)
    try:
        model = flow.normalize(container.parse())
        with silence():
            passes.CheckerPass()(model)
        graph = flow.trace(model, output)
        spec = _input_spec(graph)
        found, skipped = sites.find(graph, embeddings=embeddings)
        positions = roles.positions(graph, found)
    except LampqError as err:
        raise AdapterError(f"{path}: {err}") from err
    except onnx.checker.ValidationError as err:
        raise AdapterError(f"{path} is no valid ONNX model: {one_line(err)}") from err
    # The file decides what the graph libraries stumble over: to the caller it is one fact.
    except Exception as err:
        raise AdapterError(f"{path} holds a graph that cannot be understood: {one_line(err)}") from err
    names = [site.name for site in found]
    inferred = [
        infer_kind(site.name, convolution=site.form.startswith("conv"), position=position)
        for site, position in zip(found, positions, strict=True)
    ]
    return OnnxModel(
        Opened(
            container=container,
            flow=graph,
            sites=found,
            kinds=tuple(override_kinds(names, inferred, kinds)),
            skipped=skipped,
            spec=spec,
            runtime=Runtime(name=str(path), providers=tuple(providers), threads=threads),
            embeddings=embeddings,
        )
    )


def _input_spec(graph: flow.Flow) -> InputSpec:
    """The model's only input.

    Raises:
        AdapterError: There are several, or the one has no shape or element type.
    """
    if len(graph.inputs) != 1:
        names = ", ".join(value.name or "?" for value in graph.inputs)
        raise AdapterError(f"needs {len(graph.inputs)} inputs ({names}); models with one are supported")
    value = graph.inputs[0]
    if value.shape is None or value.dtype is None or not isinstance(value.type, ir.TensorType):
        raise AdapterError(
            f"the input {value.name} has no shape or no element type; export the model with both"
        )
    shape = tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape.dims)
    return InputSpec(name=value.name or "", shape=shape, dtype=value.dtype.numpy().name)
