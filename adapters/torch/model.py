"""A PyTorch model: what all formats do, and what only a module can: its activations rounded, its norms rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.torch import compressed
from lampq.adapters.torch.backend import TorchBackend, Value
from lampq.adapters.torch.histograms import histograms
from lampq.adapters.torch.joint_fisher import joint_fisher
from lampq.adapters.torch.norm_rewrites import rewritten, seen_norms
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.refining import learned_codes
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.site_samples import site_samples
from lampq.adapters.torch.variant import Variant
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.quantizing.activation_range import Histogram
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.treatments.rewrites import SeenNorm
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from typing import Self


class TorchModel(BackedModel[Variant, Value]):
    """A PyTorch module, its quantizable weights, and what it computes.

    It is the model of all formats, nothing of which it does otherwise, and what lampq asks of models whose activations
    can be rounded (`lampq.core.measuring.model.RoundingModel`) or whose codes can be learned.

    Layers are parameters, not modules: whatever reaches a matrix product or a convolution counts, also the
    packed `in_proj_weight` of `nn.MultiheadAttention`. A parameter used in several places is one layer.
    """

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        provenance: Provenance,
        *,
        kinds: Mapping[str, str] | None = None,
        rules: Mapping[str, ActivationRule] | None = None,
    ) -> Self:
        """The model of a module; see `lampq.adapters.torch.variant.Variant`."""
        return cls(TorchBackend(Variant(runtime, provenance, kinds=kinds, rules=rules)))

    @property
    def module(self) -> torch.nn.Module:
        """The module, with the weights it was read with."""
        return self.variant.module

    @property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them."""
        return self.variant.parameters

    @property
    def rewrites(self) -> tuple[NormRewrite, ...]:
        """Normalizations that were rewritten, so that it computes the same in other numbers."""
        return self.variant.rewrites

    def with_examples(self, batch: BatchLike) -> Self:
        """The same model, known by data: which inputs it is fed, and of what shapes and types.

        Raises:
            AdapterError: The module does not take them.
        """
        return self._of(self.variant.known_by(self._named(batch)))

    def for_folder(self) -> Self:
        """The same model with the layers alone that a Hugging Face folder can pack; `skipped` has the others.

        Raises:
            AdapterError: There are none.
        """
        reasons = {name: compressed.why_not(self.variant, name) for name in self.parameters}
        unpacked = {name: why for name, why in reasons.items() if why is not None}
        if not unpacked:
            return self
        if len(unpacked) == len(reasons):
            examples = {why: name for name, why in unpacked.items()}
            whys = "; ".join(f"{name}: {why}" for why, name in examples.items())
            raise AdapterError(
                f"{self.name}: a folder could pack none of its weights ({whys}); write a .safetensors file"
            )
        return self._of(self.variant.without(unpacked))

    def for_file(self) -> Self:
        """The same model, whose bytes are those of a packed file."""
        return self._of(self.variant.in_file())

    def norms(self, batch: BatchLike) -> tuple[SeenNorm, ...]:
        """Normalizations in the order the model runs them, and what calibration sees of their channels."""
        return seen_norms(self.variant, self.backend.checked(batch))

    def with_rewrites(self, rewrites: Sequence[NormRewrite]) -> Self:
        """The same model, computing the same, with some normalizations rewritten.

        Raises:
            AdapterError: One cannot be rewritten without changing what the model computes; names it.
        """
        return self._of(self.variant.rewritten(rewritten(self.variant, rewrites), rewrites))

    def products(self) -> tuple[Product, ...]:
        """Products of two activations, such as those of attention, in the order the model uses them.

        Raises:
            AdapterError: The model calls a fused attention that has no plain form.
        """
        return self.variant.records.products

    def with_products(self, rules: Mapping[str, ActivationRule]) -> Self:
        """The same model with factors of attention rounded; `calibrate` names them.

        Raises:
            AdapterError: The model has no such factor.
        """
        known = [site for product in self.products() for site in product.sites]
        for name in rules:
            if name not in known:
                raise AdapterError(f"{self.name} has no product {name}; it has {', '.join(known) or 'none'}")
        return self._of(self.variant.rounded(rules))

    def calibrate(self, batch: BatchLike, *, products: bool = False) -> dict[str, Histogram]:
        """Values of every layer's input, by layer, and where wanted of every factor of attention.

        Raises:
            RecordError: They are not finite; names the place.
        """
        variant, inputs = self.variant, self.backend.checked(batch)
        names = {parameter: name for name, parameter in self.parameters.items()}
        by_site = histograms(variant.runtime, variant.tensors, variant.rounding, inputs, products=products)
        return {names.get(site, site): histogram for site, histogram in by_site.items()}

    def site_samples(self, batch: Batch, readout: Readout, names: Sequence[str]) -> dict[str, Seen]:
        """What sites see in a batch, layers' inputs by the layer; see `lampq.adapters.torch.site_samples`."""
        variant = self.variant
        sites = {name if "@" in name else variant.records.parameter(name): name for name in names}
        uses = variant.runtime.survey.uses
        read = [site for site in sites if "@" in site or any(use.form != "lookup" for use in uses[site])]
        return {sites[site]: seen for site, seen in site_samples(variant, batch, readout, read).items()}

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
        inputs = self.backend.checked(batch)
        return joint_fisher(self.variant, inputs, candidates, readout, draws, progress=progress)

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

    def _named(self, batch: BatchLike) -> Batch:
        return Batch.of(batch, name=self.variant.runtime.signature.main)

    def _of(self, variant: Variant) -> Self:
        return self if variant is self.variant else self._like(TorchBackend(variant))
