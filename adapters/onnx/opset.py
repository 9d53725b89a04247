"""A graph to rewrite, in an operator set that has what quantized weights need."""

from __future__ import annotations

import onnx_ir as ir
from onnx import version_converter

from lampq.adapters.onnx import flow, sites
from lampq.adapters.onnx.container import one_line
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Variant
from lampq.core.values.errors import AdapterError

# Tensors from here on are left out of the conversion, which copies whatever it is given several times.
_LARGE_BYTES = 1024


def fresh_graph(variant: Variant, lowest: int) -> tuple[ir.Model, tuple[Site, ...]]:
    """A graph of the model to change, of operator set `lowest` or later, and its sites.

    Raises:
        AdapterError: The operator set is older, and onnx cannot convert the model.
    """
    graph, own = _with_replacements(variant)
    version = int(graph.opset_imports[""])
    if version >= lowest:
        return graph, own
    where = f"{variant.path} has operator set {version}; quantized weights need {lowest}"
    try:
        converted = _convert(graph, lowest)
        traced = flow.trace(flow.normalize(converted))
        again, _ = sites.find(traced, embeddings=variant.opened.embeddings)
    # The converter raises whatever it stumbles over, which is up to the model.
    except Exception as err:
        raise AdapterError(f"{where}, and converting it failed ({one_line(err)}); export it again") from err
    if [site.name for site in again] != [site.name for site in own]:
        raise AdapterError(f"{where}, and converting it changed its layers; export it again")
    return converted, again


def _with_replacements(variant: Variant) -> tuple[ir.Model, tuple[Site, ...]]:
    graph, own = variant.fresh()
    for site in own:
        if site.name in variant.replaced:
            dtype = site.dtype
            array = variant.weight(site.name).astype(dtype.numpy())
            site.weight.const_value = ir.Tensor(array, dtype=dtype, name=site.weight.name)
    return graph, own


def _convert(model: ir.Model, version: int) -> ir.Model:
    """The model in another operator set. Its large tensors take no part: they wait as inputs meanwhile."""
    tensors: dict[str, ir.TensorProtocol] = {}
    proto = ir.to_proto(_without_large(model, tensors))
    converted = version_converter.convert_version(proto, version)
    result = ir.from_proto(converted)
    for value in tuple(result.graph.inputs):
        if value.name in tensors:
            result.graph.inputs.remove(value)
            value.const_value = tensors[value.name]
            result.graph.register_initializer(value)
    # The converter keeps the graph and little else, and layers are named by what exporters note at nodes.
    traces = {node.name: node.metadata_props for node in model.graph if node.name}
    for node in result.graph:
        if node.name in traces:
            node.metadata_props.update(traces[node.name])
    result.metadata_props.update(model.metadata_props)
    result.doc_string = model.doc_string
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.domain, result.model_version = model.domain, model.model_version
    for domain, number in model.opset_imports.items():
        result.opset_imports.setdefault(domain, number)
    return result


def _without_large(model: ir.Model, tensors: dict[str, ir.TensorProtocol]) -> ir.Model:
    graph = model.graph
    for name, value in tuple(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _LARGE_BYTES:
            tensors[name] = tensor
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    return model
