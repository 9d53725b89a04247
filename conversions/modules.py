"""What PyTorch tools call a layer: the path of its module."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lampq.adapters import format_named
from lampq.adapters.format import MODULES
from lampq.conversions.entry import AnyLayer, NoPlaceError
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError

if TYPE_CHECKING:
    from lampq.adapters.torch.model import TorchModel

LINEAR, CONVOLUTION, EMBEDDING = "Linear", "Conv2d", "Embedding"
# nn.MultiheadAttention keeps q, k and v in a parameter of its own, which is no module.
_PACKED = "in_proj"


def module_path(layer: AnyLayer, target: Target, *classes: str) -> str:
    """The module that holds a layer's weight.

    With the model at hand its modules are asked; without it the shape and the name tell.

    Args:
        layer: The layer.
        target: The model.
        classes: Classes of torch.nn that the tool covers.

    Raises:
        NoPlaceError: The weight is of another class, or of none.
        PlanError: The model is no PyTorch model.
    """
    if target.model is not None:
        return _asked(layer, target, classes)
    if layer.name.rpartition(".")[2] == _PACKED:
        raise NoPlaceError("a packed parameter, which no module of its own holds")
    module_class = LINEAR if len(layer.shape) == 2 else CONVOLUTION if len(layer.shape) == 4 else None
    if layer.kind == "embedding":
        module_class = EMBEDDING
    if module_class not in classes:
        raise NoPlaceError(f"no {' or '.join(classes)}")
    return layer.name


def _asked(layer: AnyLayer, target: Target, classes: tuple[str, ...]) -> str:
    model = target.model
    if model is None or format_named(model.format).addresses != MODULES:
        raise PlanError("modules are known of PyTorch models alone; give such a model, or none")
    model = cast("TorchModel", model)
    path, _, last = model.parameters[layer.name].rpartition(".")
    class_name = type(model.module.get_submodule(path)).__name__
    if last != "weight":
        raise NoPlaceError(f"a packed parameter of {class_name}, which no module of its own holds")
    if class_name not in classes and class_name != "NonDynamicallyQuantizableLinear":
        raise NoPlaceError(f"a {class_name}, no {' or '.join(classes)}")
    return path
