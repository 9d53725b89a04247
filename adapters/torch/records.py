"""What is known of a module's quantizable weights, whatever has been replaced: names, uses, records."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.replaced import named
from lampq.adapters.torch.rounding import products_of
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.uses import Use
from lampq.core.values.errors import AdapterError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer
from lampq.core.values.product import Product


class Records:
    """Names and measures the weights of a module; each is done when it is first needed.

    Args:
        runtime: The module made runnable.
        kinds: Pattern -> kind, overriding what names say.
    """

    def __init__(self, runtime: Runtime, kinds: Mapping[str, str]) -> None:
        self._runtime, self._chosen = runtime, kinds

    def on(self, runtime: Runtime) -> Records:
        """The same of a runtime with more outputs."""
        other = copy.copy(self)
        other._runtime = runtime
        return other

    def anew(self, runtime: Runtime) -> Records:
        """What is known of another runtime of the module: nothing yet."""
        return Records(runtime, self._chosen)

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them."""
        return {layer_name(name): name for name in self._runtime.survey.uses}

    def parameter(self, name: str) -> str:
        """The parameter of a layer.

        Raises:
            AdapterError: No layer is so called.
        """
        return named(self.parameters, name, whose=self._runtime.name)

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is used."""
        return self._runtime.survey.uses[self.parameter(name)]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights in the order the model uses them.

        Raises:
            RecordError: One holds NaN or infinity.
        """
        weights = self._runtime.weights
        return tuple(
            self.measure(name, array_of(weights[parameter])) for name, parameter in self.parameters.items()
        )

    def measure(self, name: str, weight: np.ndarray) -> Layer:
        """The record of a layer with this weight.

        Raises:
            RecordError: It holds NaN or infinity.
        """
        uses = self.uses(name)
        main = next((use for use in uses if use.form != "lookup"), uses[0])
        shares = tuple(use.module for use in uses if use is not main)
        kind = self._kinds[name]
        layer = Layer.from_weight(name, weight, kind=kind, channel_axis=main.channel_axis, shares=shares)
        scale = self._runtime.findings.foldable.get(self.parameters[name])
        folded = None if scale is None else Fingerprint.from_array(weight * scale)
        return layer if folded is None else dataclasses.replace(layer, folded=folded)

    @cached_property
    def _kinds(self) -> Mapping[str, str]:
        names, places = list(self.parameters), self._runtime.findings.places
        kinds = [
            infer_kind(
                name,
                convolution=self.uses(name)[0].convolution is not None,
                position=places.get(parameter),
            )
            for name, parameter in self.parameters.items()
        ]
        return dict(zip(names, override_kinds(names, kinds, self._chosen), strict=True))

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """Products of two activations, such as those of attention, in the order the model uses them.

        Raises:
            AdapterError: The model calls a fused attention that has no plain form.
        """
        return tuple(products_of(self._runtime.recording(self._runtime.example, products=True)))

    def product(self, name: str) -> Product:
        """A product by its name.

        Raises:
            AdapterError: None is so called.
        """
        products = {product.name: product for product in self.products}
        if name not in products:
            raise AdapterError(
                f"{self._runtime.name} has no product {name}; it has {', '.join(products) or 'none'}: the plan is for "
                f"another model"
            )
        return products[name]


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array of one's own, float32."""
    return tensor.detach().cpu().to(torch.float32, copy=True).numpy()


def layer_name(parameter: str) -> str:
    """The module path of a parameter: its name without `.weight`; a packed one keeps what tells it apart."""
    for suffix in (".weight", "_weight"):
        if parameter.endswith(suffix):
            return parameter.removesuffix(suffix)
    return parameter
