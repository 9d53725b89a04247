"""Write a quantized model, run it, and compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch import agreement, compressed, packed
from lampq.adapters.torch.packed_records import Record
from lampq.adapters.torch.variant import Variant, Varied
from lampq.core.measuring.encoding import Plain, coded_for, plain_encoder, uniform_encoder
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.formed import Formed
from lampq.core.quantizing.quantizer import Quantized, weight_of
from lampq.core.values import staging
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.fitted import Fitted
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.publishing import atomic_folder, atomic_path

# Rounding of float32 in another order.
_TOLERANCE = 1e-4


def write(model: Varied, plan: Plan, path: Path) -> float:
    """Write `model` quantized by `plan`: packed safetensors, or a Hugging Face directory for a model from
    one.

    The file is read back and run; its outputs must be those of the model with rounded weights.

    Args:
        model: The float model.
        plan: Widths, with the model's own layer names; layers it leaves out stay float.
        path: A .safetensors file, or a directory that does not exist.

    Returns:
        The largest difference of an output, relative to its largest entry.

    Raises:
        PlanError: The plan names a layer that the model has not.
        AdapterError: The path names another format, or what was written computes something else.
    """
    path, variant = Path(path), model.variant
    directory = variant.provenance.hugging_face and path.suffix == ""
    if not directory and path.suffix != ".safetensors":
        kinds = ".safetensors or a new directory" if variant.provenance.hugging_face else ".safetensors"
        raise AdapterError(f"{path}: a PyTorch model is written as {kinds}")
    unknown = [layer.name for layer in plan.layers if layer.name not in variant.parameters]
    if unknown:
        raise PlanError(f"the plan is for another model: {model.path.name} has no layer {unknown[0]}")
    model = coded_for(model, plan)
    if directory and _rounds_sites(plan):
        raise AdapterError(
            f"{path}: a folder has no place for quantizers of activations; write a .safetensors file"
        )
    if directory:
        model.coding.refuse_form("Hugging Face folders")
        # Rounding what is stored as floats would cost accuracy and save nothing.
        packable = tuple(layer for layer in plan.layers if compressed.fits(variant, layer.name))
        plan = dataclasses.replace(plan, layers=packable)
    weights = quantize_layers(model, plan)
    values = {name: weight_of(weights[name], layer.shape, _axis(model, name)) for name, layer in _named(plan)}
    expected = model.with_weights(values)
    if directory:
        with atomic_folder(path) as temporary:
            uniform = {name: coded for name, coded in weights.items() if isinstance(coded, Quantized)}
            return _write_folder(model, expected, plan.widths, plan.block, uniform, temporary, path)
    return _write_file(model, expected, plan, weights, path)


def _write_file(
    model: Varied, expected: Varied, plan: Plan, weights: Mapping[str, Plain], path: Path
) -> float:
    variant = model.variant
    parameters = variant.parameters
    records = {parameters[name]: _record(model, layer, plan, weights[name]) for name, layer in _named(plan)}
    by_parameter = {parameters[name]: quantized for name, quantized in weights.items()}
    rest = {
        name: variant.provenance.as_stored(tensor)
        for name, tensor in variant.tensors.items()
        if name in variant.module.state_dict() and name not in records
    }
    tensors = packed.encode(records, by_parameter, rest)
    with atomic_path(path) as temporary:
        packed.write(temporary, records, origin(variant), tensors, _sites(plan))
        return _compare(variant, expected.variant, packed.read(temporary).state(), path)


def rehearse_folder(model: Varied, path: Path) -> None:
    """Write and read back a folder with nothing measured, so that what cannot be written fails at once.

    Args:
        model: The float model; its layers are those that folders can pack.
        path: Where the folder will be, for messages.

    Raises:
        AdapterError: The folder could not be read back, or would compute something else.
    """
    nearest = model.with_coding(Coding(block=model.coding.block))
    layers = {layer.name: layer for layer in nearest.layers()}
    widths = dict.fromkeys(layers, 8)
    weights = {name: uniform_encoder(nearest, name, layer.channel_axis)(8) for name, layer in layers.items()}
    values = {
        name: weight_of(weights[name], layer.shape, layer.channel_axis) for name, layer in layers.items()
    }
    with staging.temporary(path.parent, directory=True) as temporary:
        expected = nearest.with_weights(values)
        _write_folder(nearest, expected, widths, model.coding.block, weights, temporary, path)


def _write_folder(
    model: Varied,
    expected: Varied,
    widths: Mapping[str, int],
    block: int | None,
    weights: Mapping[str, Quantized],
    temporary: Path,
    path: Path,
) -> float:
    """Write into `temporary` what will be at `path`, and compare its outputs with the expected ones."""
    try:
        compressed.write(model, widths, block, weights, temporary)
        return _compare(model.variant, expected.variant, compressed.read_back(temporary), path)
    except AdapterError as err:
        cause = str(err).replace(str(temporary), str(path)).removeprefix(f"{path}: ")
        raise AdapterError(
            f"{path}: as a folder the quantized model cannot be read back ({cause}); write a .safetensors file"
        ) from err


def quantize_layers(model: Varied, plan: Plan) -> dict[str, Plain]:
    """Codes and scales of every layer of a plan, on the model's grid."""
    quantized = {}
    for name, layer in _named(plan):
        quantized[name] = plain_encoder(model, name, _axis(model, name))(layer.weight_bits)
    return quantized


def origin(variant: Variant) -> dict[str, Any]:
    """What a packed file says of where its model came from: enough to build it again, and no path."""
    config: Any = getattr(variant.module, "config", None)
    if hasattr(config, "to_diff_dict"):
        return {
            "kind": "transformers",
            "architecture": type(variant.module).__name__,
            "config": config.to_diff_dict() | {"model_type": config.model_type},
        }
    if variant.provenance.source.startswith("timm:"):
        return {
            "kind": "timm",
            "name": variant.provenance.source.removeprefix("timm:"),
            "classes": variant.module.num_classes,
        }
    place, colon, name = variant.provenance.source.rpartition(":")
    return {"kind": "factory", "source": Path(place).name + colon + name} if colon else {"kind": "module"}


def _named(plan: Plan) -> Iterator[tuple[str, PlanLayer]]:
    return ((layer.name, layer) for layer in plan.layers)


def _axis(model: Varied, name: str) -> int:
    return next(layer.channel_axis for layer in model.layers() if layer.name == name)


def _record(model: Varied, layer: PlanLayer, plan: Plan, quantized: Plain) -> Record:
    return Record(
        layer=layer.name,
        bits=layer.weight_bits,
        step=quantized.step,
        offset=quantized.offset,
        shape=layer.shape,
        channel_axis=_axis(model, layer.name),
        block=plan.block,
        container=plan.container,
        activation_bits=layer.activation_bits,
        activation_range=layer.activation_range,
        quantizer=layer.quantizer,
        form=quantized.form.name if isinstance(quantized, Formed) else None,
    )


def _rounds_sites(plan: Plan) -> bool:
    return bool(_sites(plan)) or any(layer.quantizer is not None for layer in plan.layers)


def _sites(plan: Plan) -> dict[str, Fitted]:
    """How factors of products are rounded, by site."""
    pairs = [
        pair
        for product in plan.products
        for pair in zip(product.product.sites, (product.left, product.right), strict=True)
    ]
    return {site: fitted for site, fitted in pairs if fitted is not None}


def _compare(variant: Variant, expected: Variant, state: dict[str, torch.Tensor], path: Path) -> float:
    """All outputs of what was written against those of the model with rounded weights, on a few samples."""
    example = variant.runtime.example
    written = {
        name: state[name].to(tensor) if name in state else tensor for name, tensor in variant.tensors.items()
    }
    missing = [name for name in variant.parameters.values() if name not in state]
    if missing:
        raise AdapterError(
            f"{path}: the weight {missing[0]} is missing from what was written; nothing was kept"
        )
    actual = agreement.arrays(variant.runtime.outputs(written, example))
    output, error = agreement.disagreement(variant.runtime.outputs(expected.tensors, example), actual)
    if not error <= _TOLERANCE:
        raise AdapterError(
            f"{path}: what was written does not compute what it should: {output} is off by {error:.2g} "
            f"of its range; nothing was kept"
        )
    return error
