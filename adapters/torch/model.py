"""A PyTorch model behind the core's protocol."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from lampq.adapters.replaced import fitting, named
from lampq.adapters.torch import compressed, packed, writing
from lampq.adapters.torch.chunks import join, real_rows
from lampq.adapters.torch.fisher import fisher_sums
from lampq.adapters.torch.gradient_rows import gradient_rows
from lampq.adapters.torch.heads import heads_of, with_named
from lampq.adapters.torch.histograms import histograms
from lampq.adapters.torch.joint_fisher import joint_fisher
from lampq.adapters.torch.norm_rewrites import rewritten, seen_norms
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.records import layer_records
from lampq.adapters.torch.refining import learned_codes
from lampq.adapters.torch.relevance import module_relevance
from lampq.adapters.torch.rounding import NOTHING, Rounding, products_of
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.site_samples import site_samples
from lampq.adapters.torch.sweep import Change, forward, sweep
from lampq.adapters.torch.taps import taps
from lampq.adapters.torch.uses import Use
from lampq.adapters.torch.walk import TorchWalk
from lampq.adapters.torch.windows import windows
from lampq.core.measuring.setting import RoundedLayers, Setting
from lampq.core.measuring.traces import Traces
from lampq.core.measuring.walk import Passes, Walk
from lampq.core.quantizing.activation_range import Histogram
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.formed import formed_bytes
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.treatments.rewrites import SeenNorm
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.blocks import scale_count
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head, HeadChoice, judged_of
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.window import Window

if TYPE_CHECKING:
    from lampq.adapters.synthetic.observation import Observer
    from lampq.core.values.option import Option
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan


class TorchModel:
    """A module, its quantizable weights, and what it computes.

    Layers are parameters, not modules: whatever reaches a matrix product or a convolution counts, also the
    packed `in_proj_weight` of `nn.MultiheadAttention`. A parameter used in several places is one layer.

    Args:
        runtime: The module made runnable.
        provenance: What it was read from.
        kinds: Pattern -> kind, overriding what names say.
        rules: How its files have activations rounded, by parameter and by site.

    Attributes:
        path: Where it was read from.
        source: The text it was read with.
        format: "torch".
        grid: Grid its weights are quantized on.
        coding: How its weights become codes.
        hugging_face: Whether it can be written as a Hugging Face directory.
        in_folder: Whether bytes are those of such a directory.
        dtype: Type of tensors that stay floating point in what is written; None keeps that in memory.
        runtime: The module made runnable.
        tensors: Parameters and buffers by name, replacements included.
        rounding: Which activations are rounded.
        rewrites: Normalizations that were rewritten, so that it computes the same in other numbers.
    """

    format = "torch"
    # Every weight of a module is one for all samples.
    spread: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        runtime: Runtime,
        provenance: Provenance,
        *,
        kinds: Mapping[str, str] | None = None,
        rules: Mapping[str, ActivationRule] | None = None,
    ) -> None:
        self.path, self.source, self.dtype = provenance.path, provenance.source, provenance.dtype
        self.hugging_face = self.in_folder = provenance.hugging_face
        # The form of Hugging Face directories has whole numbers alone.
        self.grid = "mid_tread" if provenance.hugging_face else "auto"
        self.coding = Coding()
        self.runtime = runtime
        self._kinds = dict(kinds or {})
        self._provenance = provenance
        self.tensors: dict[str, torch.Tensor] = runtime.weights
        self.rounding = Rounding(rules=rules) if rules else NOTHING
        self.rewrites: tuple[NormRewrite, ...] = ()
        self._choices: tuple[HeadChoice, ...] = ()
        self._heads: tuple[Head, ...] | None = None
        self._layers: tuple[Layer, ...] | None = None
        self._parameters: dict[str, str] | None = None
        self._products: tuple[Product, ...] | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.runtime.name

    @property
    def module(self) -> torch.nn.Module:
        """The module, with the weights it was read with."""
        return self.runtime.module

    @property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values of all tensors as read, whatever has been replaced."""
        return self.runtime.digest

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
    def example_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of a sample of each input, as the model has been used so far."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.runtime.example.items()}

    @property
    def input_spec(self) -> InputSpec:
        """The only input that must be fed.

        Raises:
            AdapterError: There are several.
        """
        return only_input(self.input_specs, self.runtime.name)

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged."""
        return self.runtime.specs.outputs

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the outputs mean, judged or not."""
        if self._heads is None:
            self.runtime = with_named(self.runtime, self._choices)
            self._heads = heads_of(self.runtime, self._choices)
        return self._heads

    @property
    def judged(self) -> tuple[Head, ...]:
        """The heads that count."""
        return tuple(head for head in self.heads if head.judged)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(parameter, reason) of every weight of two or more axes that stays as it is."""
        return tuple(self.runtime.survey.skipped.items())

    @property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them."""
        if self._parameters is None:
            self._parameters = {layer_name(name): name for name in self.runtime.survey.uses}
        return self._parameters

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is used."""
        return self.runtime.survey.uses[self._parameter(name)]

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once and cached."""
        if self._layers is None:
            self._layers = tuple(layer_records(self, self._kinds))
        return self._layers

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will."""
        return self.tensors[self._parameter(name)].detach().cpu().to(torch.float32, copy=True).numpy()

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of preprocessed inputs, canonical, float32, samples first."""
        chunks = list(self.runtime.chunks(self._batch(batch)))
        heads = judged_of(self.heads, self.name)
        outputs = [
            real_rows(
                forward(self.runtime, self.tensors, self.rounding, chunk.inputs), chunk, heads, self.name
            )
            for chunk in chunks
        ]
        return join(outputs, [chunk.group for chunk in chunks], heads, self.name)

    def with_examples(self, batch: BatchLike) -> TorchModel:
        """The same model, known by data: which inputs it is fed, and of what shapes and types.

        Raises:
            AdapterError: The module does not take them.
        """
        other = copy.copy(self)
        other.runtime = self.runtime.fitted(self._batch(batch))
        if other.runtime is self.runtime:
            return self
        other._heads = other._parameters = other._layers = other._products = None
        _ = other.heads
        return other

    def with_heads(self, choices: Sequence[HeadChoice]) -> TorchModel:
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

    def _batch(self, batch: BatchLike) -> Batch:
        """Inputs by name; a lone array is the main one."""
        return Batch.of(batch, name=self.runtime.signature.main)

    def with_weights(self, weights: Mapping[str, np.ndarray | Setting]) -> TorchModel:
        """The same model with some layers replaced: new weights (arrays in the shape of the layer's record), or
        a setting, which also says how the layer's input is rounded.
        """
        other = copy.copy(self)
        other.tensors = dict(self.tensors)
        for name, value in weights.items():
            change = self._change(name, value)
            if change.weight is not None and change.tensor is not None:
                other.tensors[change.weight] = change.tensor
            other.rounding = other.rounding.changed(change.rules)
        other._layers = None
        return other

    def for_folder(self) -> TorchModel:
        """The same model with the layers alone that a Hugging Face folder can pack; `skipped` has the others.

        Raises:
            AdapterError: There are none.
        """
        reasons = {name: compressed.why_not(self, name) for name in self.parameters}
        unpacked = {name: why for name, why in reasons.items() if why is not None}
        if not unpacked:
            return self
        if len(unpacked) == len(reasons):
            examples = {why: name for name, why in unpacked.items()}
            whys = "; ".join(f"{name}: {why}" for why, name in examples.items())
            raise AdapterError(
                f"{self.runtime.name}: a folder could pack none of its weights ({whys}); "
                f"write a .safetensors file"
            )
        other = copy.copy(self)
        other.runtime = self.runtime.without({self.parameters[name]: why for name, why in unpacked.items()})
        other._parameters = other._layers = None
        return other

    def for_file(self) -> TorchModel:
        """The same model, whose bytes are those of a packed file."""
        if not self.in_folder:
            return self
        other = copy.copy(self)
        other.in_folder = False
        return other

    def norms(self, batch: BatchLike) -> tuple[SeenNorm, ...]:
        """Normalizations in the order the model runs them, and what calibration sees of their channels."""
        return seen_norms(self, self._batch(batch))

    def with_rewrites(self, rewrites: Sequence[NormRewrite]) -> TorchModel:
        """The same model, computing the same, with some normalizations rewritten.

        Raises:
            AdapterError: One cannot be rewritten without changing what the model computes; names it.
        """
        other = copy.copy(self)
        other.tensors = rewritten(self, rewrites)
        other.rewrites = (*self.rewrites, *rewrites)
        other._layers = None
        return other

    def products(self) -> tuple[Product, ...]:
        """Products of two activations, such as those of attention, in the order the model uses them.

        Raises:
            AdapterError: The model calls a fused attention that has no plain form.
        """
        if self._products is None:
            recording = self.runtime.recording(self.runtime.example, products=True)
            self._products = tuple(products_of(recording))
        return self._products

    def site_samples(self, batch: Batch, readout: Readout, names: Sequence[str]) -> dict[str, Seen]:
        """What sites see in a batch, layers' inputs by the layer; see `lampq.adapters.torch.site_samples`."""
        sites = {name if "@" in name else self._parameter(name): name for name in names}
        uses = self.runtime.survey.uses
        read = [site for site in sites if "@" in site or any(use.form != "lookup" for use in uses[site])]
        return {sites[site]: seen for site, seen in site_samples(self, batch, readout, read).items()}

    def with_products(self, rules: Mapping[str, ActivationRule]) -> TorchModel:
        """The same model with factors of attention rounded; `calibrate` names them.

        Raises:
            AdapterError: The model has no such factor.
        """
        known = [site for product in self.products() for site in product.sites]
        for name in rules:
            if name not in known:
                raise AdapterError(
                    f"{self.runtime.name} has no product {name}; it has {', '.join(known) or 'none'}"
                )
        other = copy.copy(self)
        other.rounding = self.rounding.changed(rules)
        return other

    def calibrate(self, batch: BatchLike, *, products: bool = False) -> dict[str, Histogram]:
        """Values of every layer's input, by layer, and where wanted of every factor of attention.

        Raises:
            RecordError: They are not finite; names the place.
        """
        names = {parameter: name for name, parameter in self.parameters.items()}
        by_site = histograms(self.runtime, self.tensors, self.rounding, self._batch(batch), products=products)
        return {names.get(site, site): histogram for site, histogram in by_site.items()}

    def with_coding(self, coding: Coding) -> TorchModel:
        """The same model with its weights turned into codes another way."""
        if self.in_folder:
            coding.refuse_form("Hugging Face folders")
        other = copy.copy(self)
        other.coding = coding
        return other

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, np.ndarray | Setting]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one layer replaced at a time; what comes before the layer is computed once."""
        batch = self._batch(batch)
        parsed = (((name, option), self._change(name, value)) for name, option, value in candidates)
        swept = sweep(
            self.runtime, self.tensors, batch, parsed, judged_of(self.heads, self.name), self.rounding
        )
        for (name, option), outputs in swept:
            yield name, option, outputs

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """For every layer and mini-batch: its name, its input, and how often a sample uses each weight."""
        return taps(self, self._batch(batch))

    def windows(self) -> dict[str, Window]:
        """What convolutions see; see `lampq.core.measuring.model.windows_of`."""
        shapes = {name: self.runtime.weights[own].shape for name, own in self.parameters.items()}
        return windows({name: self.uses(name) for name in shapes}, shapes)

    def observer(self, batch: Batch) -> Observer:
        """Forward passes that show what normalizations and attentions make of inputs like those of a batch."""
        from lampq.adapters.torch.observer import module_observer

        return module_observer(self.with_examples(batch))

    def walk(self, batch: Batch) -> Walk:
        """One pass that stops at every layer; see `lampq.core.measuring.walk.Walking`."""
        if self.runtime.obstacle is not None:
            # Every batch takes a course of its own.
            return Passes(self, batch)
        return TorchWalk(self, list(self.runtime.chunks(self._batch(batch))), self._change)

    def stored_bits(self) -> dict[str, tuple[int, int | None]]:
        """Widths of the weights that are stored quantized, and of their inputs, by name."""
        return dict(self._provenance.stored)

    def file_bytes(self) -> int:
        """Bytes of the files that hold the weights, or of all tensors where they come from no file."""
        stored = self._provenance.file_bytes()
        return sum(tensor.nbytes for tensor in self.runtime.weights.values()) if stored is None else stored

    def rest_bytes(self, *, activations: bool = False) -> int:
        """Bytes of a quantized file, at most, beside its payload: all other tensors, names and descriptions."""
        from lampq.adapters.torch import size

        return size.rest_bytes(self, activations=activations)

    def overhead(
        self,
        layers: Sequence[Layer],
        options: Sequence[Option],
        container: str,
        *,
        steps: np.ndarray | None = None,
        ranges: np.ndarray | None = None,
    ) -> Overhead:
        """What a file holds beside codes and scales, at most; see `lampq.core.measuring.model.Sized`."""
        from lampq.adapters.torch import size

        return size.overhead(self, layers, options, container, steps=steps, ranges=ranges)

    def as_stored(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in the type that it has on disk where it stays as it is."""
        return tensor if self.dtype is None or not tensor.is_floating_point() else tensor.to(self.dtype)

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width."""
        if self.in_folder:
            return compressed.stored_bytes(self, layer, bits)
        if self.coding.form is not None:
            return formed_bytes(self.coding.form, layer, bits, container)
        scales = scale_count(layer.shape, layer.channel_axis, self.coding.block)
        return packed.payload_bytes(layer.size, scales, bits, container)

    def fisher(
        self, batch: BatchLike, readout: Readout, draws: Draws, *, progress: Progress = quiet
    ) -> Traces:
        """Fisher traces from gradients; see `lampq.core.measuring.traces.Differentiable`."""
        sums = fisher_sums(self, self._batch(batch), readout, draws, progress=progress)
        return Traces(kind=draws.kind, weight=sums.traces(), activation=sums.activation_traces())

    def joint_fisher(
        self,
        batch: BatchLike,
        candidates: RoundedLayers,
        readout: Readout,
        draws: Draws,
        *,
        progress: Progress = quiet,
    ) -> dict[str, np.ndarray]:
        """Second-order damage of weights and inputs rounded together; see `lampq.adapters.torch.joint_fisher`."""
        return joint_fisher(self, self._batch(batch), candidates, readout, draws, progress=progress)

    def gradient_rows(
        self,
        batch: BatchLike,
        candidates: RoundedLayers,
        readout: Readout,
        draws: Draws,
        *,
        progress: Progress = quiet,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Changes of the outputs to first order; see `lampq.core.measuring.gradient_rows.GradientRows`."""
        return gradient_rows(self, self._batch(batch), candidates, readout, draws, progress=progress)

    def relevance(self, batch: Batch, *, progress: Progress = quiet) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""
        return module_relevance(self, self._batch(batch), progress)

    def learned_codes(
        self,
        quantized: TorchModel,
        codes: Mapping[str, Quantized],
        batch: Batch,
        steps: int,
        progress: Progress = quiet,
    ) -> dict[str, Quantized]:
        """Codes learned block by block; see `lampq.core.measuring.refinement.Trainable`."""
        return learned_codes(self, quantized, codes, batch, steps, progress)

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float:
        """Write the model quantized by `plan`, then run and verify what was written; see `writing.write`.

        Returns the largest difference that was seen, relative to an output's largest entry. Ranges of inputs are in the
        plan, so calibration inputs are not looked at.
        """
        return writing.write(self, plan, path)

    def _product(self, name: str) -> Product:
        products = {product.name: product for product in self.products()}
        if name not in products:
            raise AdapterError(
                f"{self.name} has no product {name}; it has {', '.join(products) or 'none'}: the plan is for another "
                f"model"
            )
        return products[name]

    def _parameter(self, name: str) -> str:
        return named(self.parameters, name, whose=self.name)

    def _change(self, name: str, value: np.ndarray | Setting) -> Change:
        if "@" in name and isinstance(value, Setting):
            product = self._product(name)
            return Change(rules={product.left: value.left, product.right: value.activation})
        if isinstance(value, Setting):
            tensor = None if value.weight is None else self._tensor(name, value.weight)
            parameter = self._parameter(name)
            return Change(weight=parameter, tensor=tensor, rules={parameter: value.activation})
        return Change(weight=self._parameter(name), tensor=self._tensor(name, value))

    def _tensor(self, name: str, array: np.ndarray) -> torch.Tensor:
        old = self.tensors[self._parameter(name)]
        array = fitting(array, old.shape, layer=name, whose=self.name)
        return torch.from_numpy(array).to(old.device, old.dtype)


def layer_name(parameter: str) -> str:
    """The module path of a parameter: its name without `.weight`; a packed one keeps what tells it apart."""
    for suffix in (".weight", "_weight"):
        if parameter.endswith(suffix):
            return parameter.removesuffix(suffix)
    return parameter
