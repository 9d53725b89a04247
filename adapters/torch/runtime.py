"""A module made runnable, recordable and surveyed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.attention

from lampq.adapters.torch.folding import scales
from lampq.adapters.torch.inputs import find_example, make_up, vocabulary_of
from lampq.adapters.torch.layout import Layout, measure_layouts
from lampq.adapters.torch.outputs import to_logits
from lampq.adapters.torch.recorder import record
from lampq.adapters.torch.survey import Survey, places_of, survey
from lampq.adapters.torch.tape import Tape
from lampq.adapters.torch.uses import Use
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

Weights = Mapping[str, torch.Tensor]
Arguments = Callable[[torch.Tensor], tuple[tuple[Any, ...], dict[str, Any]]]
"""What a module is called with for a batch."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A tape and where it uses the model's weights.

    Attributes:
        tape: The tape.
        uses: Uses in the order they run, each with how samples lie in its rows (None where samples mix).
        products: Operators that multiply two activations: (index, leaves of the two factors).
    """

    tape: Tape
    uses: tuple[tuple[Use, Layout | None], ...]
    products: tuple[tuple[int, tuple[int, int]], ...]


# Two runs on the same samples may differ by rounding, no more.
_TOLERANCE = 1e-3
_RECORDINGS_KEPT = 4


class Runtime:
    """A module in evaluation mode and all that is known of its forward pass, measured once and on demand.

    Args:
        module: The module; put into evaluation mode on `device`.
        name: What to call it in messages.
        input_shape: Shape of one sample; None tries usual ones.
        arguments: How to call the module; None passes the batch alone.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        autocast: Lower precision for matrix products (torch.bfloat16, torch.float16), or None.
        batch_size: Samples per run.
        fixed_batch: The only number of samples the module takes, or None.
        embeddings: Whether embedding tables count as quantizable weights.

    Attributes:
        module: The module.
        weights: Parameters and buffers by name, detached; a tied tensor under its first name.
        layouts: (parameter, n) -> how samples lie in the rows of its n-th use, None where they mix; known once
            the survey is taken.
        device: Where it runs.
        batch_size: Samples per run.
        fixed_batch: The only number of samples the module takes, or None.
        arguments: How to call the module.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        name: str = "the model",
        input_shape: tuple[int, ...] | None = None,
        arguments: Arguments | None = None,
        device: str = "auto",
        autocast: torch.dtype | None = None,
        batch_size: int = 64,
        fixed_batch: int | None = None,
        embeddings: bool = False,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.module = module.to(device)
        for member in module.modules():
            # Exported programs refuse eval(); they are what they are.
            member.training = False
        self.name = name
        self.device = torch.device(device)
        self.autocast = autocast
        self.batch_size = fixed_batch or batch_size
        self.fixed_batch = fixed_batch
        self.weights: dict[str, torch.Tensor] = {
            key: tensor.detach() for key, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        self._trainable = {key for key, t in module.named_parameters() if t.is_floating_point()}
        self._input_shape = input_shape
        self.arguments = arguments or (lambda batch: ((batch,), {}))
        self._embeddings = embeddings
        self._example: torch.Tensor | None = None
        self._sample_shape: tuple[int | None, ...] | None = None
        self._survey: Survey | None = None
        self.layouts: dict[tuple[str, int], Layout | None] = {}
        self._recordings: dict[tuple[Any, ...], Recording] = {}
        self._obstacle: str | None = None
        self._places: dict[str, str] = {}
        self._foldable: dict[str, np.ndarray] = {}
        self._digest: str | None = None

    def forward(self, weights: Weights, batch: torch.Tensor) -> torch.Tensor:
        """Logits of a batch with the given weights, through the module's own code."""
        args, kwargs = self.arguments(batch)
        with (
            plain_attention(),
            torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None),
        ):
            return to_logits(torch.func.functional_call(self.module, dict(weights), args, kwargs))

    def logits(self, weights: Weights, batch: torch.Tensor) -> torch.Tensor:
        """`forward` without gradients, for a batch that may not fit.

        Raises:
            AdapterError: The module fails on it.
        """
        try:
            with torch.no_grad():
                return self.forward(weights, batch)
        except AdapterError:
            raise
        # Modules raise whatever a wrong input makes them stumble over.
        except Exception as err:
            raise AdapterError(
                f"{self.name} fails on inputs of shape {tuple(batch.shape)}: {reason(err, last=True)}"
            ) from err

    @property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values of all parameters and buffers."""
        if self._digest is None:
            digest = hashlib.sha256()
            for name in sorted(self.weights):
                tensor = self.weights[name].cpu().contiguous()
                digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
            self._digest = digest.hexdigest()
        return self._digest

    @property
    def example(self) -> torch.Tensor:
        """A made-up batch: two samples, or as many as the model insists on."""
        if self._example is None:
            if self.fixed_batch is not None and self._input_shape is not None:
                self._example = self.make_up_batch(self.fixed_batch, 0)
            else:
                run = lambda batch: self.forward(self.weights, batch)  # noqa: E731
                self._example = find_example(self.module, run, self._input_shape)
        return self._example

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """Shape of one sample; None for axes of any length."""
        if self._sample_shape is None:
            shape = tuple(self.example.shape[1:])
            self._sample_shape = shape
            if self._input_shape is None and len(shape) in (1, 3):
                # A guessed size need not be the only one.
                longer = tuple(n + (32 if len(shape) == 3 else 8) for n in shape[-2:])
                with contextlib.suppress(Exception), torch.no_grad():
                    self.forward(self.weights, self.make_up_batch(2, 2, (*shape[:-2], *longer)))
                    self._sample_shape = (*shape[:-2], *(None for _ in longer))
        return self._sample_shape

    def without(self, reasons: Mapping[str, str]) -> Runtime:
        """The same module with some weights left as they are.

        Args:
            reasons: Parameter -> why.
        """
        other = copy.copy(self)
        uses = {name: use for name, use in self.survey.uses.items() if name not in reasons}
        other._survey = dataclasses.replace(
            self.survey, uses=uses, skipped={**self.survey.skipped, **reasons}
        )
        return other

    @property
    def survey(self) -> Survey:
        """Where the model multiplies by its weights.

        Raises:
            AdapterError: The forward pass is random, or fails.
        """
        if self._survey is None:
            self._take_survey()
        assert self._survey is not None  # For the type checker.
        return self._survey

    @property
    def places(self) -> Mapping[str, str]:
        """Parameter -> kind, where its place in the forward pass tells: first convolution, last product."""
        _ = self.survey
        return self._places

    @property
    def foldable(self) -> Mapping[str, np.ndarray]:
        """Parameter -> scale of the normalization behind it, where exporters can fold one into it."""
        _ = self.survey
        return self._foldable

    @property
    def obstacle(self) -> str | None:
        """The operator that makes each batch take its own course; None where one tape serves them all."""
        _ = self.survey
        return self._obstacle

    @property
    def samples_mix(self) -> bool:
        """Whether a layer's rows of one sample depend on others: then only single samples tell them apart."""
        _ = self.survey
        return any(
            self.layouts[name, i] is None for name, uses in self.survey.uses.items() for i in range(len(uses))
        )

    def recording(
        self,
        batch: torch.Tensor,
        weights: Weights | None = None,
        *,
        grad: bool = False,
        products: bool = False,
    ) -> Recording:
        """A tape for batches like this one, recorded now or earlier.

        Args:
            batch: The batch.
            weights: Weights to record with where the tape holds for this batch alone.
            grad: Choose operators as training would, so that autograd works through the tape.
            products: Record fused attention as the two products and the softmax that it stands for.

        Raises:
            AdapterError: Products are wanted, and the model calls a fused attention that has no plain form.
        """
        key = (tuple(batch.shape), batch.dtype, grad, products)
        reusable = self.obstacle is None
        if reusable and key in self._recordings:
            return self._recordings[key]
        with plain_products() if products else contextlib.nullcontext():
            tape, _ = self._record(self.weights if weights is None else weights, batch, grad)
        fused = next((op for op in tape.operations if "attention" in op.name), None)
        if products and fused is not None:
            raise AdapterError(
                f"{self.name}: {fused.name} in {fused.module or 'the model'} is one operator, whose factors "
                f"cannot be rounded; leave the products of attention float"
            )
        found = survey(tape, self.weights, embeddings=self._embeddings)
        uses = [
            (use, self.layouts.get((name, place)))
            for name, group in found.uses.items()
            if name in self.survey.uses
            for place, use in enumerate(group)
        ]
        uses.sort(key=lambda pair: pair[0].operation)
        recording = Recording(tape=tape, uses=tuple(uses), products=found.products)
        if reusable:
            while len(self._recordings) >= _RECORDINGS_KEPT:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = recording
        return recording

    def batches(self, batch: np.ndarray, size: int | None = None) -> Iterator[tuple[torch.Tensor, int]]:
        """Mini-batches as tensors on the device, and how many of their samples count (a fixed batch is
        filled up).

        Raises:
            AdapterError: The array cannot be an input.
        """
        size = self.fixed_batch or size or self.batch_size
        for start in range(0, len(batch), size):
            tensor = self.tensor(batch[start : start + size])
            count = len(tensor)
            if self.fixed_batch is not None and count < size:
                tensor = torch.cat([tensor, tensor[-1:].expand(size - count, *tensor.shape[1:])])
            yield tensor, count

    def tensor(self, batch: np.ndarray) -> torch.Tensor:
        """An array of samples in the type that the model takes."""
        array = np.ascontiguousarray(batch)
        if array.dtype.kind in "iu" and vocabulary_of(self.module) is not None:
            return torch.from_numpy(array.astype(np.int64)).to(self.device)
        if array.dtype.kind not in "fiub":
            raise AdapterError(f"{self.name}: inputs of type {array.dtype} are no numbers")
        like = next((t for t in self.weights.values() if t.is_floating_point()), torch.zeros(()))
        return torch.from_numpy(array.astype(np.float32, copy=False)).to(self.device, like.dtype)

    def make_up_batch(self, count: int, seed: int, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Random samples of the shape that the model takes, or of another."""
        shape = shape or tuple(self._input_shape or self.example.shape[1:])
        vocabulary = vocabulary_of(self.module) if len(shape) == 1 else None
        return make_up((count, *shape), vocabulary, self.module, seed).to(self.device)

    def _record(self, weights: Weights, batch: torch.Tensor, grad: bool) -> tuple[Tape, torch.Tensor]:
        if not grad:
            with torch.no_grad():
                return record(self.forward, weights, batch, module=self.module)
        # Buffers take no gradients, and some operators insist that they do not.
        leaves = {
            key: tensor.detach().requires_grad_(key in self._trainable) for key, tensor in weights.items()
        }
        with torch.enable_grad():
            return record(self.forward, leaves, batch, module=self.module)

    def _take_survey(self) -> None:
        one = self.example
        other = self.make_up_batch(len(one), 1)
        with torch.no_grad():
            tape, recorded = self._record(self.weights, one, False)
            if tape.random is not None:
                raise AdapterError(
                    f"{self.name} is random: {tape.random} draws random numbers; "
                    f"switch it off, for example with eval()"
                )
            if not _same(recorded, self.forward(self.weights, one)):
                raise AdapterError(
                    f"{self.name} is random: the same input twice gives two results; remove what is random"
                )
            obstacle = tape.obstacle
            if obstacle is None and not tape.cuts()[0]:
                obstacle = "an operator that overwrites its input"
            found = survey(tape, self.weights, embeddings=self._embeddings)
            uses = [use for group in found.uses.values() for use in group]
            layouts, replayed = measure_layouts(tape, uses, self.weights, other, one)
            if obstacle is None and not _same(replayed, self.forward(self.weights, other)):
                obstacle = "code outside torch"
        by_operation = dict(zip((use.operation for use in uses), layouts, strict=True))
        for name, group in found.uses.items():
            self.layouts.update(((name, i), by_operation[use.operation]) for i, use in enumerate(group))
        self._places = places_of(tape, uses)
        self._foldable = scales(tape, found.uses, self.weights)
        self._survey, self._obstacle = found, obstacle


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(one.detach().abs().max()) + 1e-12
    return one.shape == other.shape and float((one - other).abs().max()) <= _TOLERANCE * scale


def plain_products() -> contextlib.AbstractContextManager[None]:
    """Have scaled_dot_product_attention compute with products and a softmax that a tape can see."""
    return torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH])


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keep `nn.TransformerEncoder` from its fused path, which neither a tape nor autograd can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
