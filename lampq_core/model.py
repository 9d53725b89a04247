"""What the core asks of a model, whatever framework it lives in. Adapters provide it; nothing inherits it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from typing import Self

    from lampq.core.activation_grid import ActivationRule
    from lampq.core.activation_range import Histogram
    from lampq.core.coding import Coding
    from lampq.core.input_spec import InputSpec
    from lampq.core.layer import Layer
    from lampq.core.plan import Plan


class Model(Protocol):
    """A readable, runnable model.

    Attributes:
        path: Where it was read from.
        format: "onnx", "torch" or "tflite".
        grid: The grid its weights are quantized on: "auto", "mid_rise" or "mid_tread" (see core.quantizer).
        coding: Blocks and rounding of its weights (see core.coding).
    """

    path: Path
    format: str
    grid: str
    coding: Coding

    @property
    def digest(self) -> str:
        """SHA-256 of its content, to tie profiles and plans to it."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of weights that stay as they are."""

    @property
    def input_spec(self) -> InputSpec:
        """Shape and type of the input."""

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width; None where the format has no such width."""

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once and cached."""

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: read on demand, and a copy.

        Whoever changes it does not change the model.
        """

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits (samples, classes) float32 of a batch of preprocessed inputs, samples first."""

    def with_weights(self, weights: Mapping[str, Any]) -> Self:
        """The same model with some weights replaced (arrays in the shape of the layer's record).

        An adapter that rounds activations also takes a `core.setting.Setting` for an array, here and in `sweep`.
        """

    def with_coding(self, coding: Coding) -> Self:
        """The same model with its weights turned into codes another way.

        Raises:
            AdapterError: The format stores one scale per channel alone, and blocks are asked for.
        """

    def sweep(
        self, batch: np.ndarray, candidates: Iterable[tuple[str, int, Any]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """Logits with one weight replaced at a time: (layer, option, array) in, (layer, option, logits) out.

        Candidates come in layer order and are drawn one by one, so that they need not fit in memory together;
        an adapter may reuse the activations in front of the replaced layer.
        """

    def taps(self, batch: np.ndarray) -> Iterator[tuple[str, np.ndarray, int]]:
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

    def write(self, plan: Plan, path: Path, *, calibration: np.ndarray | None = None) -> None:
        """Write the model quantized by `plan` in its own format, then run and verify what was written.

        Calibration inputs, samples first, are for formats that fix the ranges of outputs as well.
        """


class RoundingModel(Model, Protocol):
    """A model whose activations can be rounded as well: it takes settings where others take weights."""

    def calibrate(self, batch: np.ndarray, *, products: bool = False) -> dict[str, Histogram]:
        """Values of every layer's input, and where wanted of the factors of attention, by name."""

    def joint_fisher(
        self,
        batch: np.ndarray,
        candidates: Mapping[str, tuple[Sequence[np.ndarray], Sequence[ActivationRule | None]]],
        *,
        truth: np.ndarray | None,
        draws: int,
        seed: int,
        samples: np.ndarray | None,
        progress: Callable[[str, int, int], None],
    ) -> dict[str, np.ndarray]:
        """E_n[(sum g dY)^2] / 2 of every pair of weights and rule of a layer's input, nats, shape (W, A).

        Raises:
            AdapterError: Gradients of single samples cannot be taken.
        """


def rounds_activations(model: Model) -> TypeGuard[RoundingModel]:
    """Whether a model is a `RoundingModel`."""
    return hasattr(model, "calibrate")
