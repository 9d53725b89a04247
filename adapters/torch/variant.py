"""A PyTorch model with some weights replaced, some activations rounded and some outputs judged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch

from lampq.adapters.torch.heads import heads_of, with_named
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.records import Records, array_of
from lampq.adapters.torch.rounding import NOTHING, Rounding
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.sweep import Change
from lampq.adapters.torch.uses import Use
from lampq.core.measuring.model import Model
from lampq.core.measuring.setting import Setting
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.norm_rewrite import NormRewrite


class Replayable(Protocol):
    """What gradients of single samples are taken of."""

    @property
    def runtime(self) -> Runtime:
        """The module made runnable."""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name, replacements included."""

    @property
    def spread(self) -> Mapping[str, str]:
        """Inputs that are weights, of which every sample has one -> layer name."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them, or the name of an input."""

    @property
    def judged(self) -> tuple[Head, ...]:
        """The heads that count."""

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32, in the shape of its record."""

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is used."""


class Variant:
    """A module with some weights replaced, some activations rounded and some outputs judged; a `Replayable`.

    Args:
        runtime: The module made runnable.
        provenance: What it was read from.
        kinds: Pattern -> kind, overriding what names say.
        rules: How its files have activations rounded, by parameter and by site.

    Attributes:
        runtime: The module made runnable, the inner tensors that are judged among its outputs.
        provenance: What it was read from.
        records: What is known of its weights.
        tensors: Parameters and buffers by name, replacements included.
        spread: Nothing: every weight of a module is one for all samples.
        rounding: Which activations are rounded.
        rewrites: Normalizations that were rewritten, so that it computes the same in other numbers.
        in_folder: Whether bytes are those of a Hugging Face directory.
    """

    spread: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        runtime: Runtime,
        provenance: Provenance,
        *,
        kinds: Mapping[str, str] | None = None,
        rules: Mapping[str, ActivationRule] | None = None,
    ) -> None:
        self.runtime, self.provenance = runtime, provenance
        self.records = Records(runtime, dict(kinds or {}))
        self.tensors: dict[str, torch.Tensor] = runtime.weights
        self.rounding = Rounding(rules=rules) if rules else NOTHING
        self.rewrites: tuple[NormRewrite, ...] = ()
        self.in_folder = provenance.hugging_face
        self._choices: tuple[HeadChoice, ...] = ()
        self._heads: tuple[Head, ...] | None = None

    @property
    def module(self) -> torch.nn.Module:
        """The module, with the weights it was read with."""
        return self.runtime.module

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the outputs mean, judged or not; told by inputs that the module takes."""
        if self._heads is None:
            self.runtime = with_named(self.runtime, self._choices)
            self.records = self.records.on(self.runtime)
            self._heads = heads_of(self.runtime, self._choices)
        return self._heads

    @property
    def judged(self) -> tuple[Head, ...]:
        """The heads that count."""
        return tuple(head for head in self.heads if head.judged)

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """Names, shapes and types of the inputs, those that data may leave out last.

        Inputs are of any shape where neither the user nor data nor trying has told it yet.
        """
        if not self.runtime.known:
            signature = self.runtime.signature
            names = signature.required or (signature.main,)
            return tuple(InputSpec(name=name, shape=(), any_rank=True) for name in names)
        specs = self.runtime.specs
        return (*specs.inputs, *specs.optional)

    @property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them."""
        return self.records.parameters

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is used."""
        return self.records.uses(name)

    def tensor(self, name: str) -> torch.Tensor:
        """The weight of a layer as it is now."""
        return self.tensors[self.records.parameter(name)]

    def weight(self, name: str) -> np.ndarray:
        """The same, float32, in the shape of its record: an array of one's own."""
        return array_of(self.tensor(name))

    def known_by(self, batch: Batch) -> Variant:
        """The same model, known by data: which inputs it is fed, and of what shapes and types.

        Raises:
            AdapterError: The module does not take them.
        """
        runtime = self.runtime.fitted(batch)
        if runtime is self.runtime:
            return self
        other = self._on(runtime)
        other._heads = None
        _ = other.heads
        return other

    def without(self, reasons: Mapping[str, str]) -> Variant:
        """The same model with some layers left as they are.

        Args:
            reasons: Layer -> why.
        """
        return self._on(self.runtime.without({self.parameters[name]: why for name, why in reasons.items()}))

    def judging(self, choices: Sequence[HeadChoice]) -> Variant:
        """The same model with some outputs judged another way; a name may be that of a submodule.

        Raises:
            AdapterError: No output or submodule is so called.
            RecordError: The role cannot be.
        """
        other = copy.copy(self)
        other._choices = (*self._choices, *choices)
        other._heads = None
        if other.runtime.known:
            _ = other.heads
        return other

    def replacing(self, values: Mapping[str, np.ndarray | Setting]) -> Variant:
        """The same model with some layers and products changed, by name."""
        other = copy.copy(self)
        other.tensors = dict(self.tensors)
        for name, value in values.items():
            change = self.change(name, value)
            if change.weight is not None and change.tensor is not None:
                other.tensors[change.weight] = change.tensor
            other.rounding = other.rounding.changed(change.rules)
        return other

    def rounded(self, rules: Mapping[str, ActivationRule]) -> Variant:
        """The same model with some sites rounded."""
        other = copy.copy(self)
        other.rounding = self.rounding.changed(rules)
        return other

    def rewritten(self, tensors: dict[str, torch.Tensor], rewrites: Sequence[NormRewrite]) -> Variant:
        """The same model with the tensors that rewriting some normalizations gives."""
        other = copy.copy(self)
        other.tensors, other.rewrites = tensors, (*self.rewrites, *rewrites)
        return other

    def in_file(self) -> Variant:
        """The same model, whose bytes are those of a packed file."""
        if not self.in_folder:
            return self
        other = copy.copy(self)
        other.in_folder = False
        return other

    def change(self, name: str, value: np.ndarray | Setting) -> Change:
        """What a weight of the right shape or a setting changes."""
        if isinstance(value, Setting) and "@" in name:
            product = self.records.product(name)
            return Change(rules={product.left: value.left, product.right: value.activation})
        parameter = self.records.parameter(name)
        array = value.weight if isinstance(value, Setting) else value
        old = self.tensors[parameter]
        tensor = None if array is None else torch.from_numpy(array).to(old.device, old.dtype)
        rules = {parameter: value.activation} if isinstance(value, Setting) else {}
        return Change(weight=parameter, tensor=tensor, rules=rules)

    def _on(self, runtime: Runtime) -> Variant:
        other = copy.copy(self)
        other.runtime, other.records = runtime, self.records.anew(runtime)
        return other


class Varied(Model, Protocol):
    """A model of this folder, as its other files see it."""

    @property
    def variant(self) -> Variant:
        """The module, and what differs from it."""
