"""Models built again from packed files alone, where what they came from can be named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch import factory, hugging_face, packed
from lampq.adapters.torch.int8_linear import use_int8
from lampq.adapters.torch.packed import PackedFile
from lampq.adapters.torch.rounded_module import round_activations
from lampq.adapters.torch.state_dict import fill
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason


def load_quantized(
    path: str | Path,
    model: str | torch.nn.Module | Callable[[], torch.nn.Module] | None = None,
    *,
    int8: bool = False,
) -> torch.nn.Module:
    """A module with the quantized weights of a file that `lampq.apply` wrote.

    Args:
        path: The file.
        model: What to fill: a module, a function that returns one, or `file.py:factory`. None builds it
            again from what the file says, for models of timm and transformers; code that a file names is
            never run.
        int8: Run `nn.Linear` layers as integer products (torch._int_mm), inputs rounded to 8 bits: on the
            calibrated range where the plan has one, else for each row on its own.

    Returns:
        The module, in evaluation mode; it rounds activations as the file says.

    Raises:
        AdapterError: The file is damaged, or the model is not given or does not fit.
    """
    path = Path(path)
    file = packed.read(path)
    module = filled(path, file, model)
    rules = file.rules()
    if int8:
        replaced = use_int8(module, file)
        rules = {name: rule for name, rule in rules.items() if name not in replaced}
    if rules:
        round_activations(module, rules)
    return module


def filled(
    path: Path,
    file: PackedFile,
    model: str | torch.nn.Module | Callable[[], torch.nn.Module] | None = None,
) -> torch.nn.Module:
    """A module with the weights of a file, whose activations stay float; see `load_quantized`."""
    if model is None:
        module = build(file, path)
    elif isinstance(model, torch.nn.Module):
        module = model
    else:
        module = factory.build(model) if isinstance(model, str) else model()
    fill(module, file.state(), path)
    return module.eval()


def build(file: PackedFile, path: Path) -> torch.nn.Module:
    """The architecture of a file, with weights that are yet to be filled.

    Raises:
        AdapterError: The file is from a factory, which only its user can name.
    """
    kind = file.origin.get("kind")
    if kind == "timm":
        return build_timm(str(file.origin["name"]), classes=int(file.origin["classes"]))
    if kind == "transformers":
        return hugging_face.build(str(file.origin["architecture"]), dict(file.origin["config"]))
    source = file.origin.get("source") or "MODEL.py:FACTORY"
    raise AdapterError(f"{path}: is for a model of {source}; give that too: {source} --weights {path.name}")


def build_timm(name: str, *, classes: int | None = None) -> torch.nn.Module:
    """A timm model with random weights.

    Raises:
        AdapterError: timm is missing, broken, or has no such model.
    """
    try:
        import timm
    except ImportError as err:
        raise AdapterError(f"timm:{name} needs timm; run: pip install timm") from err
    except RuntimeError as err:
        raise AdapterError(
            f"timm cannot be imported, because torchvision does not fit torch: {reason(err)}"
        ) from err
    if not timm.is_model(name):
        raise AdapterError(f"timm {timm.__version__} has no model {name}; timm.list_models() lists them")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    module: torch.nn.Module = timm.create_model(name, pretrained=False, **options)
    return module
