"""What the core asks of a model, whatever framework it lives in. Adapters provide it; nothing inherits it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from lampq.core.values.memory import give_back
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from typing import Self

    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.quantizing.activation_range import Histogram
    from lampq.core.quantizing.coding import Coding
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.treatments.rewrites import SeenNorm
    from lampq.core.treatments.seen import Seen
    from lampq.core.values.batch import Batch, BatchLike
    from lampq.core.values.head import Head, HeadChoice
    from lampq.core.values.input_spec import InputSpec
    from lampq.core.values.layer import Layer
    from lampq.core.values.norm_rewrite import NormRewrite
    from lampq.core.values.option import Option
    from lampq.core.values.output_spec import OutputSpec
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan
    from lampq.core.values.product import Product
    from lampq.core.values.window import Window


class Model(Protocol):
    """A readable, runnable model.

    Attributes:
        path: Where it was read from.
        format: Name of its format (`adapters.formats`): "onnx", "torch", "tflite" or another's.
        grid: The grid its weights are quantized on: "auto", "mid_rise" or "mid_tread" (see core.quantizing.quantizer).
        coding: Blocks and rounding of its weights (see core.quantizing.coding).
    """

    path: Path
    format: str
    grid: str
    coding: Coding

    @property
    def heads(self) -> tuple[Head, ...]:
        """What its outputs mean (see core.readouts), judged or not, in the order of its outputs."""

    @property
    def digest(self) -> str:
        """SHA-256 of its content, to tie profiles and plans to it."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of weights that stay as they are."""

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """Names, shapes and types of the inputs that must be fed."""

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that stand for outputs behind discontinuous operators."""

    def with_heads(self, choices: Sequence[HeadChoice]) -> Self:
        """The same model with some outputs judged another way; a name may be that of any inner tensor.

        Raises:
            AdapterError: No output or tensor is so called; lists the outputs.
            RecordError: The role cannot be.
        """

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width; None where the format has no such width."""

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once and cached."""

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: read on demand, and a copy.

        Whoever changes it does not change the model.
        """

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of preprocessed inputs, float32, samples first, by name.

        They are canonical: logits where the file ends in a softmax or sigmoid (`core.readouts.canonical`). Samples
        of several shapes are run group by group; a lone array goes to the only input.

        Raises:
            AdapterError: The inputs do not fit, or the runtime fails.
        """

    def with_weights(self, weights: Mapping[str, Any]) -> Self:
        """The same model with some weights replaced (arrays in the shape of the layer's record).

        An adapter that rounds activations also takes a `core.measuring.setting.Setting` for an array,
        here and in `sweep`.
        """

    def with_coding(self, coding: Coding) -> Self:
        """The same model with its weights turned into codes another way.

        Raises:
            AdapterError: The format stores one scale per channel alone, and blocks are asked for.
        """

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, Any]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one weight replaced at a time: (layer, option, array) in, (layer, option, outputs) out.

        Candidates come in layer order and are drawn one by one, so that they need not fit in memory together;
        an adapter may reuse the activations in front of the replaced layer.
        """

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """For every layer: its name, its input array, and how often a sample uses each weight (positions).

        Samples that only fill up a batch of fixed size are not among the inputs.
        """

    def rest_bytes(self, *, activations: bool = False) -> int:
        """Bytes of a quantized file, at most, beside the payload of its layers, which may include quantized inputs."""

    def file_bytes(self) -> int:
        """Size of the file or files."""

    def stored_bits(self) -> Mapping[str, tuple[int, str | int | None]]:
        """Width of weights that are quantized already, by name, where the file tells them, and with it their
        container, or the width of their input.
        """

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float | None:
        """Write the model quantized by `plan` in its own format, then run and verify what was written.

        Returns the largest difference that was seen, relative to the magnitude of the outputs, or None.

        Calibration inputs, samples first, are for formats that fix the ranges of outputs as well.
        """


class Sized(Model, Protocol):
    """A model whose file takes more than codes and scales for a layer, by its width: nodes, names, tables."""

    def overhead(
        self,
        layers: Sequence[Layer],
        options: Sequence[Option],
        container: str,
        *,
        steps: np.ndarray | None = None,
        ranges: np.ndarray | None = None,
    ) -> Overhead:
        """What a file holds beside codes and scales.

        Args:
            layers: The L layers that are quantized, the others stay as they are; with the statistics of their inputs
                where these are quantized.
            options: J options.
            container: How codes are stored.
            steps: Distance of neighbouring integers (`core.quantizing.quantizer.Quantized.step`), int64, shape (L, J);
                None where it is not known.
            ranges: Ends of the grids of the layers' inputs, shape (L, J, 2), where others than those of their
                statistics are stored; None where there are none.
        """


def is_sized(model: Model) -> TypeGuard[Sized]:
    """Whether a model is `Sized`; of others `rest_bytes` and `payload_bytes` say all."""
    return hasattr(model, "overhead")


@runtime_checkable
class _Windowed(Protocol):
    """A model that knows what its convolutions see."""

    def windows(self) -> Mapping[str, Window]:
        """By layer, those whose weights are a kernel with one row for each output channel."""


def windows_of(model: Model) -> Mapping[str, Window]:
    """What convolutions of a model see, by layer, as far as it is known."""
    return model.windows() if isinstance(model, _Windowed) else {}


@runtime_checkable
class _Releasing(Protocol):
    """A model that runs in what takes memory and can be made again."""

    def release(self) -> None:
        """Let go of it; it is made again when it is needed."""


def release(model: Model) -> None:
    """Let go of what a model runs in, where that can be made again, and give back the memory.

    A session holds the weights of a model as its kernels like them: as much as its file, and with the file as it was
    read twice as much.
    """
    if isinstance(model, _Releasing):
        model.release()
    give_back()


class RoundingModel(Model, Protocol):
    """A model whose activations can be rounded as well: it takes settings where others take weights.

    Attributes:
        rewrites: Normalizations that were rewritten, so that it computes the same in other numbers.
    """

    rewrites: tuple[NormRewrite, ...]

    def norms(self, batch: BatchLike) -> tuple[SeenNorm, ...]:
        """Normalizations in the order the model runs them, and what calibration sees of their channels."""

    def with_rewrites(self, rewrites: Sequence[NormRewrite]) -> Self:
        """The same model, computing the same, with some normalizations rewritten.

        Raises:
            AdapterError: One cannot be rewritten without changing what the model computes; names it.
        """

    def calibrate(self, batch: BatchLike, *, products: bool = False) -> dict[str, Histogram]:
        """Values of every layer's input, and where wanted of the factors of attention, by name."""

    def products(self) -> tuple[Product, ...]:
        """Products of two activations whose factors can be rounded: settings and sweeps take them by name."""

    def site_samples(self, batch: Batch, readout: Readout, names: Sequence[str]) -> dict[str, Seen]:
        """What sites see in a batch of one shape, layers' inputs by the layer, with gradients where it can.

        Raises:
            RecordError: Values are not finite, or there are none; names the site.
        """

    def joint_fisher(
        self,
        batch: BatchLike,
        candidates: RoundedLayers,
        readout: Readout,
        draws: Draws,
        *,
        progress: Progress = quiet,
    ) -> dict[str, np.ndarray]:
        """E_n[(sum g dY)^2] / 2 of every pair of weights and rule of a layer's input, nats, shape (W, A).

        Raises:
            AdapterError: Gradients of single samples cannot be taken.
        """


@runtime_checkable
class _RoundsInputs(Protocol):
    """What tells a `RoundingModel` from others; to look for all of it would read the model."""

    def calibrate(self, batch: BatchLike, *, products: bool = False) -> dict[str, Histogram]:
        """See `RoundingModel`."""


def rounds_activations(model: Model) -> TypeGuard[RoundingModel]:
    """Whether a model is a `RoundingModel`."""
    return isinstance(model, _RoundsInputs)
