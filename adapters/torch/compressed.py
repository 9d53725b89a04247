"""Hugging Face directories in the compressed-tensors form that plain `from_pretrained` reads
(pack-quantized).

That form has whole numbers with one scale per output row or block of it, b bits each without gaps, and a place for
`nn.Linear` and `nn.Embedding` alone. Other weights keep their rounded values as floats, which
`stored_bytes` counts as such.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch import hugging_face
from lampq.adapters.torch.variant import Variant, Varied
from lampq.core.quantizing.quantizer import Quantized, weight_of
from lampq.core.values.blocks import row_block, scale_count
from lampq.core.values.errors import AdapterError
from lampq.core.values.layer import Layer

_SCALE_BYTES, _SHAPE_BYTES, _WORD_BITS = 4, 16, 32
# What a tensor's entry takes beside its name: {"dtype":"F32","shape":[1,2],"data_offsets":[3,4]}.
_ENTRY_BYTES = 75
# What the configuration says of a width, of all quantization and of the architecture, and about the name of a layer;
# measured with compressed-tensors 0.20, and some to spare.
GROUP_BYTES, _CONFIG_BYTES, _LINE_BYTES = 470, 800, 14
_COPIED = (
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
)


def fits(variant: Variant, name: str) -> bool:
    """Whether the form has a place for a layer's codes."""
    return why_not(variant, name) is None


def why_not(variant: Variant, name: str) -> str | None:
    """Why the form has no place for a layer's codes, or None where it has one."""
    module, parameter = variant.module, variant.parameters[name]
    path, _, last = parameter.rpartition(".")
    kind = type(module.get_submodule(path))
    if last != "weight" or kind not in (torch.nn.Linear, torch.nn.Embedding):
        return f"{kind.__name__}.{last}: folders hold packed weights of Linear and Embedding alone"
    if not _left_uninitialized(module, path, kind):
        return f"transformers initializes weights of {kind.__name__} before loading, and finds none if packed"
    weight = module.get_parameter(parameter)
    owners = sum(other is weight for _, other in module.named_parameters(remove_duplicate=False))
    return "tied to another weight, which folders cannot pack" if owners > 1 else None


def _left_uninitialized(module: torch.nn.Module, path: str, kind: type[torch.nn.Module]) -> bool:
    """Whether transformers can load a module without a weight: it lets models initialize what files seem to lack."""
    names = path.split(".")
    parents = [module.get_submodule(".".join(names[:depth])) for depth in range(len(names))]
    initialize = next(
        (own for parent in reversed(parents) if (own := getattr(parent, "_init_weights", None))), None
    )
    if initialize is None:
        return True
    probe: Any = kind(1, 1)
    probe.weight = None
    try:
        initialize(probe)
    except (AttributeError, TypeError):
        return False
    return True


def stored_bytes(model: Varied, layer: Layer, bits: int) -> int:
    """Bytes of a layer at a width: packed words, scales and shape; floats where it cannot be packed."""
    if not fits(model.variant, layer.name):
        return 4 * layer.size
    words = -(-layer.shape[1] * bits // _WORD_BITS)
    scales = scale_count(layer.shape, layer.channel_axis, model.coding.block)
    return layer.shape[0] * 4 * words + scales * _SCALE_BYTES + _SHAPE_BYTES


def header_bytes(variant: Variant, rest: Mapping[str, torch.Tensor], layers: Sequence[str]) -> int:
    """Bytes that the file spends on names and sizes, nearly: names on disk may differ from those in memory.

    Args:
        variant: The float model.
        rest: Tensors that are stored as they are.
        layers: Names of the others.
    """
    names = list(rest)
    for name in layers:
        path = variant.parameters[name].removesuffix(".weight")
        members = ("weight_packed", "weight_scale", "weight_shape") if fits(variant, name) else ("weight",)
        names += [f"{path}.{member}" for member in members]
    return 8 + sum(len(name) + _ENTRY_BYTES for name in names)


def target_bytes(parameter: str) -> int:
    """Bytes of the line that names a layer in the configuration."""
    return _LINE_BYTES + len(_target(parameter.removesuffix(".weight")))


def side_bytes(variant: Variant) -> int:
    """Bytes of the files beside the weights, without what the configuration says of single widths and layers."""
    copied = [variant.provenance.path / name for name in _COPIED]
    module: Any = variant.module
    texts = [module.config.to_json_string()]
    generation = getattr(module, "generation_config", None)
    if generation is not None and module.can_generate():
        texts.append(generation.to_json_string())
    return (
        sum(file.stat().st_size for file in copied if file.is_file())
        + sum(len(text.encode()) for text in texts)
        + _CONFIG_BYTES
    )


def _target(path: str) -> str:
    return "re:^" + path.replace(".", "[.]") + "$"


def write(
    model: Varied,
    widths: Mapping[str, int],
    block: int | None,
    weights: Mapping[str, Quantized],
    directory: Path,
) -> None:
    """Write a model into an existing empty directory.

    Args:
        model: The float model, read from a Hugging Face directory.
        widths: Layer -> bits of its weight, for layers that fit.
        block: Weights that share a scale, or None.
        weights: Layer -> codes and scales on the mid-tread grid.
        directory: The directory.

    Raises:
        AdapterError: compressed-tensors is missing.
    """
    quantization = _import_quantization()
    transformers = hugging_face.import_transformers()
    variant, layers = model.variant, {layer.name: layer for layer in model.layers()}
    packed: dict[tuple[int, int | None], list[str]] = {}
    # A model of transformers, which adds methods of its own.
    module: Any = copy.deepcopy(variant.module).cpu()
    for name, tensor in variant.tensors.items():
        if tensor is not variant.runtime.weights.get(name):
            # Rewritten with a normalization.
            module.get_parameter(name).data = tensor.detach().cpu().clone()
    for name, bits in widths.items():
        layer, parameter = layers[name], variant.parameters[name]
        values = weight_of(weights[name], layer.shape, layer.channel_axis)
        module.get_parameter(parameter).data = torch.from_numpy(values)
        length = row_block(layer.shape, layer.channel_axis, block)
        packed.setdefault((bits, length), []).append(parameter.removesuffix(".weight"))
    groups = {
        f"{bits}_bits" + ("" if length else "_per_channel" if block else ""): quantization.QuantizationScheme(
            targets=[_target(name) for name in names],
            weights=quantization.QuantizationArgs(
                num_bits=bits,
                type="int",
                symmetric=True,
                strategy="group" if length else "channel",
                group_size=length,
            ),
        )
        for (bits, length), names in sorted(packed.items(), key=lambda item: (item[0][0], item[0][1] or 0))
    }
    config = quantization.QuantizationConfig(
        config_groups=groups, format="pack-quantized", quantization_status="compressed", ignore=[]
    )
    with hugging_face.quietly(transformers):
        quantization.apply_quantization_config(module, config, run_compressed=False)
        for names in packed.values():
            for path in names:
                scale = weights[_layer_of(variant, f"{path}.weight")].scale
                rows = len(module.get_parameter(f"{path}.weight"))
                stored = module.get_parameter(f"{path}.weight_scale")
                stored.data = torch.from_numpy(scale.reshape(rows, -1).copy())
        compressor = _import_compressor().from_pretrained_model(module)
        compressor.compress_model(module)
        if variant.provenance.dtype is not None:
            _narrow(module, variant.provenance.dtype)
        module.save_pretrained(directory)
        compressor.update_config(directory)
    for name in _COPIED:
        source = variant.provenance.path / name
        if source.is_file():
            (directory / name).write_bytes(source.read_bytes())


def _narrow(module: Any, dtype: torch.dtype) -> None:
    """What is not quantized goes back to the type that it was read in; scales stay as exact as they are."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not name.endswith("_scale"):
            parameter.data = parameter.data.to(dtype)
    module.config.dtype = dtype


def read_back(directory: Path) -> dict[str, torch.Tensor]:
    """Parameters of a written directory, as `from_pretrained` gives them."""
    return {
        name: tensor.detach() for name, tensor in hugging_face.load(directory).module.state_dict().items()
    }


def _layer_of(variant: Variant, parameter: str) -> str:
    return next(name for name, other in variant.parameters.items() if other == parameter)


def _import_quantization() -> Any:
    try:
        import compressed_tensors.quantization
    except ImportError as err:
        raise AdapterError(
            "writing a Hugging Face directory needs compressed-tensors; run: "
            "pip install 'compressed-tensors>=0.18', or write a .safetensors file"
        ) from err
    return compressed_tensors.quantization


def _import_compressor() -> Any:
    from compressed_tensors.compressors import ModelCompressor

    return ModelCompressor
