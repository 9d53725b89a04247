"""Read an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.onnx import flow, heads, inputs, outputs, probe, roles, sites
from lampq.adapters.onnx.backend import OnnxBackend, OnnxModel
from lampq.adapters.onnx.container import Container, one_line, silence
from lampq.adapters.onnx.devices import providers_of
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.records import Records
from lampq.adapters.onnx.requantize import parse
from lampq.adapters.onnx.session import Runtime
from lampq.adapters.onnx.variant import Variant
from lampq.core.values.errors import AdapterError, LampqError


def read(
    path: str | Path,
    *,
    kinds: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    embeddings: bool = True,
    requantize: bool = False,
    device: str = "cpu",
    providers: Sequence[Any] = (),
    threads: int | None = None,
) -> OnnxModel:
    """Read an ONNX file; weights stay in it until they are asked for.

    Any outputs will do: what they mean is inferred (`heads`), and can be set by `with_heads`.

    Args:
        path: The .onnx file, trusted or not: no file outside its folder is read.
        kinds: Layer kinds to set, by glob or `re:` pattern over layer names; they win over what names say.
        constants: Values of inputs that are the same for all samples (image sizes, flags), by name.
        embeddings: Whether tables that are looked up count as layers.
        requantize: Whether weights that are quantized already count, as the floats that they stand for.
        device: Where it runs: `cpu`, `cuda`, `cuda:1` or another provider of ONNX Runtime.
        providers: ONNX Runtime's execution providers, best first, in place of those of the device.
        threads: Threads of one operator; None leaves it to ONNX Runtime.

    Returns:
        The model. One without quantizable weights can be run; its `layers()` raises.

    Raises:
        AdapterError: The file is missing, damaged, no ONNX, refers to data outside its folder, or has no such
            input to fix; or ONNX Runtime has no such device.
    """
    path, providers = Path(path), tuple(providers) or providers_of(device)
    container = Container(path)
    try:
        model = parse(container, requantize=requantize)
        _check(model)
        graph = flow.trace(model)
        specs = inputs.describe(graph)
        fixed = inputs.fix(specs, constants)
        quantizable, left = sites.find(graph, embeddings=embeddings)
        probe.infer_types(graph)
        described = outputs.describe(graph, quantizable)
        inferred = heads.infer(described, specs, path.stem)
        graph = heads.judge(graph, inferred)
        positions = roles.positions(graph, quantizable)
    except LampqError as err:
        raise AdapterError(f"{path}: {err}") from err
    except onnx.checker.ValidationError as err:
        raise AdapterError(f"{path} is no valid ONNX model: {one_line(err)}") from err
    # The file decides what the graph libraries stumble over: to the caller it is one fact.
    except Exception as err:
        raise AdapterError(f"{path} holds a graph that cannot be understood: {one_line(err)}") from err
    names = [site.name for site in quantizable]
    by_place = [
        infer_kind(site.name, convolution="Conv" in site.uses[0].node.op_type, position=position)
        for site, position in zip(quantizable, positions, strict=True)
    ]
    opened = Opened(
        container=container,
        flow=graph,
        sites=quantizable,
        kinds=tuple(override_kinds(names, by_place, kinds)),
        left=sites.not_understood(left) if requantize else left,
        all_specs=specs,
        constants=fixed,
        outputs=described.specs,
        heads=inferred,
        jumping=described.jumping,
        runtime=Runtime(name=str(path), providers=providers, threads=threads),
        embeddings=embeddings,
        requantize=requantize,
    )
    return BackedModel(OnnxBackend(Variant(opened=opened, records=Records(opened))))


def _check(model: ir.Model) -> None:
    """Let onnx look for what cannot be; inputs and outputs of unknown rank are none of it.

    Raises:
        ValidationError: The model breaks the standard.
    """
    ends = (*model.graph.inputs, *model.graph.outputs)
    shapeless = [v for v in ends if v.shape is None and isinstance(v.type, ir.TensorType)]
    for value in shapeless:
        value.shape = ir.Shape(())
    with silence():
        passes.CheckerPass()(model)
    for value in shapeless:
        value.shape = None
