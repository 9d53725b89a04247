"""A module made runnable, recordable and surveyed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lampq.adapters.torch import feeding, hugging_face_inputs
from lampq.adapters.torch.agreement import arrays, disagreement
from lampq.adapters.torch.chunks import Chunk, filled_up, samples_of, split
from lampq.adapters.torch.devices import device_of, precision_of
from lampq.adapters.torch.folding import scales
from lampq.adapters.torch.fronts import Front, fronts
from lampq.adapters.torch.inputs import Inputs, find_example, longer, vary
from lampq.adapters.torch.kernels import plain_attention, plain_masks, plain_products, plain_recurrence
from lampq.adapters.torch.layout import Layout, measure_layouts
from lampq.adapters.torch.outputs import captured, flatten
from lampq.adapters.torch.recorder import record
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.specs import Specs, describe
from lampq.adapters.torch.survey import Survey, places_of, survey
from lampq.adapters.torch.tape import Named, Tape
from lampq.adapters.torch.uses import Use
from lampq.core.values.batch import Batch
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

Weights = Named
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A tape and where it uses the model's weights.

    Attributes:
        tape: The tape.
        uses: Uses in the order they run, each with how samples lie in its rows (None where samples mix).
        products: Operators that multiply two activations: (index, leaves of the two factors).
        samples: Samples of the inputs that it was recorded on.
    """

    tape: Tape
    uses: tuple[tuple[Use, Layout | None], ...]
    products: tuple[tuple[int, tuple[int, int]], ...]
    samples: int = 1


# Two runs on the same samples may differ by rounding, no more.
_TOLERANCE = 1e-3
_RECORDINGS_KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a module runs.

    Attributes:
        device: `cpu`, `cuda`, `mps`, or `auto`: a GPU where there is one.
        autocast: Lower precision for matrix products (torch.bfloat16, torch.float16), or None.
        batch_size: Samples per run.
    """

    device: str = "auto"
    autocast: torch.dtype | None = None
    batch_size: int = 64

    @classmethod
    def of(cls, **choices: Any) -> Execution:
        """From fields by name, with devices and types by theirs.

        Raises:
            RecordError: There is no such field.
            AdapterError: There is no such device or type.
        """
        refuse_unknown(choices, (field.name for field in dataclasses.fields(cls)), "reading a PyTorch model")
        execution = cls(**choices)
        device, autocast = str(device_of(execution.device)), precision_of(execution.autocast)
        return dataclasses.replace(execution, device=device, autocast=autocast)


class Runtime:
    """A module in evaluation mode and all that is known of its forward pass, measured once and on demand.

    What is measured needs an example of its inputs: that of the data (`fitted`), else the first batch that is run,
    else one that is found by trying.

    Args:
        module: The module; put into evaluation mode on `device`.
        name: What to call it in messages.
        input_shape: Shape of one sample, or of each input by name; None lets data or trying tell.
        signature: What the module takes; None reads it off its forward.
        execution: How it runs.
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
        signature: What the module takes.
        inner: Outputs of submodules that count as outputs of the module.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        name: str = "the model",
        input_shape: Shape | Mapping[str, Shape] | None = None,
        signature: Signature | None = None,
        execution: Execution | None = None,
        fixed_batch: int | None = None,
        embeddings: bool = True,
    ) -> None:
        execution = execution or Execution()
        self.device = device_of(execution.device)
        self.module = module.to(self.device)
        for member in module.modules():
            # Exported programs refuse eval(); they are what they are.
            member.training = False
        self.name = name
        self.autocast = execution.autocast
        self.batch_size = fixed_batch or execution.batch_size
        self.fixed_batch = fixed_batch
        self.weights: dict[str, torch.Tensor] = {
            key: tensor.detach() for key, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        self._trainable = {key for key, t in module.named_parameters() if t.is_floating_point()}
        shapes = {} if input_shape is None else input_shape
        self._shapes = dict(shapes) if isinstance(shapes, Mapping) else {"": tuple(shapes)}
        self.signature = signature or Signature.of(module)
        self._embeddings = embeddings
        self.inner: tuple[str, ...] = ()
        self._digest: str | None = None
        self._forget()

    def _forget(self) -> None:
        self._example: Inputs | None = None
        self._varied: Inputs | None = None
        self._learned = False
        self._specs: Specs | None = None
        self._survey: Survey | None = None
        self.layouts: dict[tuple[str, int], Layout | None] = {}
        self._recordings: dict[tuple[Any, ...], Recording] = {}
        self._obstacle: str | None = None
        self._fronts: tuple[Front, ...] = ()
        self._places: dict[str, str] = {}
        self._foldable: dict[str, np.ndarray] = {}

    def forward(self, weights: Weights, inputs: Named) -> dict[str, torch.Tensor]:
        """Outputs by name with the given weights, through the module's own code."""
        args, kwargs = self.signature.arguments(inputs)
        with (
            plain_attention(),
            plain_recurrence(self.module),
            plain_masks(),
            torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None),
            captured(self.module, self.inner) as inner,
        ):
            output = torch.func.functional_call(self.module, dict(weights), args, kwargs)
        return {**flatten(output), **inner}

    def outputs(self, weights: Weights, inputs: Named) -> dict[str, torch.Tensor]:
        """All outputs, and what stands for some of them, without gradients, for inputs that may not fit.

        Raises:
            AdapterError: The module fails on them.
        """
        with torch.no_grad(), self._fed(inputs):
            if self.fronts:
                return self.recording(inputs, weights).tape.run(weights, inputs)
            return self.forward(weights, inputs)

    @contextlib.contextmanager
    def _fed(self, inputs: Named) -> Iterator[None]:
        """Say in one line what a module has against its inputs.

        Raises:
            AdapterError: The module fails on them.
        """
        try:
            yield
        except AdapterError:
            raise
        # Modules raise whatever a wrong input makes them stumble over.
        except Exception as err:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
            raise AdapterError(
                f"{self.name} fails on inputs of shape {shapes}: {reason(err, last=True)}"
            ) from err

    @property
    def _stated(self) -> bool:
        """Whether the user or a configuration says the shapes."""
        return bool(self._shapes) or hugging_face_inputs.states_images(self.module)

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
    def example(self) -> Inputs:
        """Inputs that the module takes: two samples, or as many as it insists on."""
        if self._example is None:
            run = lambda inputs: self.forward(self.weights, inputs)  # noqa: E731
            if self.fixed_batch is not None:
                run = lambda inputs: self.forward(self.weights, filled_up(inputs, self.batch_size))  # noqa: E731
            example = find_example(self.module, self.signature, run, self._shapes)
            self._example = example if self.fixed_batch is None else vary(example, self.fixed_batch, 0)
        return self._example

    @property
    def known(self) -> bool:
        """Whether inputs that the module takes are known: said, learned from data, or found by trying.

        Raises:
            AdapterError: The shapes that were said are not taken.
        """
        if self._example is not None or self._shapes:
            return bool(self.example)
        with contextlib.suppress(AdapterError):
            return bool(self.example)
        return False

    def fitted(self, batch: Batch) -> Runtime:
        """The same module, known by the shapes and types of data.

        Raises:
            AdapterError: The module does not take them.
        """
        example, varied = self._from_data(batch)
        if self._learned and varied is None and feeding.alike(example, self.example):
            return self
        other = copy.copy(self)
        other._forget()
        other._example, other._varied, other._learned = example, varied, True
        return other

    def with_inner(self, names: tuple[str, ...]) -> Runtime:
        """The same module with outputs of submodules among its own."""
        other = copy.copy(self)
        example, varied, learned = self._example, self._varied, self._learned
        other._forget()
        other._example, other._varied, other._learned = example, varied, learned
        other.inner = tuple(dict.fromkeys((*self.inner, *names)))
        return other

    @property
    def specs(self) -> Specs:
        """What goes in and comes out."""
        if self._specs is None:
            example = self.example
            recording = self.recording(example)
            count = samples_of(example) + 1
            self._specs = describe(
                recording.tape,
                example,
                self.outputs(self.weights, example),
                grown=self._grown(),
                more=None if self.fixed_batch is not None else self._tried(self.samples(count, 3)),
                fronts=self.fronts,
                signature=self.signature,
                fixed_batch=self.fixed_batch,
            )
        return self._specs

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
        other._recordings = {}
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
    def fronts(self) -> tuple[Front, ...]:
        """Tensors that stand for outputs that jump."""
        _ = self.survey
        return self._fronts

    @property
    def samples_mix(self) -> bool:
        """Whether a layer's rows of one sample depend on others: then only single samples tell them apart."""
        _ = self.survey
        return any(
            self.layouts[name, i] is None for name, uses in self.survey.uses.items() for i in range(len(uses))
        )

    def recording(
        self,
        inputs: Named,
        weights: Weights | None = None,
        *,
        grad: bool = False,
        products: bool = False,
    ) -> Recording:
        """A tape for inputs like these, recorded now or earlier.

        Args:
            inputs: The inputs.
            weights: Weights to record with where the tape holds for these inputs alone.
            grad: Choose operators as training would, so that autograd works through the tape.
            products: Record fused attention as the two products and the softmax that it stands for.

        Raises:
            AdapterError: The module fails on them; or products are wanted, and it calls a fused attention that has no
                plain form.
        """
        shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in inputs.items())
        key = (shapes, grad, products)
        reusable = self.obstacle is None
        if reusable and key in self._recordings:
            return self._recordings[key]
        with self._fed(inputs), plain_products() if products else contextlib.nullcontext():
            tape, _, _ = self._record(self.weights if weights is None else weights, inputs, grad)
        fused = next((op for op in tape.operations if "attention" in op.name), None)
        if products and fused is not None:
            raise AdapterError(
                f"{self.name}: {fused.name} in {fused.module or 'the model'} is one operator, whose factors "
                f"cannot be rounded; leave the products of attention float"
            )
        surveyed = survey(tape, self.weights, embeddings=self._embeddings)
        uses = [
            (use, self.layouts.get((name, place)))
            for name, group in surveyed.uses.items()
            if name in self.survey.uses
            for place, use in enumerate(group)
        ]
        uses.sort(key=lambda pair: pair[0].operation)
        recording = Recording(
            tape=tape, uses=tuple(uses), products=surveyed.products, samples=samples_of(inputs)
        )
        if reusable:
            while len(self._recordings) >= _RECORDINGS_KEPT:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = recording
        return recording

    def chunks(self, batch: Batch, size: int | None = None) -> Iterator[Chunk]:
        """A batch some samples at a time, on the device.

        Raises:
            AdapterError: The arrays cannot be inputs.
        """
        if self._example is None and not self._shapes:
            self._example, self._varied = self._from_data(batch)
            self._learned = True
        size = self.fixed_batch or size or self.batch_size
        for number, group in split(feeding.named(batch, self.signature, self.name), size):
            inputs = feeding.typed(group, self.example, self.module, self.name)
            count = samples_of(inputs)
            yield Chunk(
                inputs=inputs if self.fixed_batch is None else filled_up(inputs, size),
                count=count,
                group=number,
            )

    def samples(self, count: int, seed: int) -> Inputs:
        """Random samples like those of the example."""
        return vary(self.example, count, seed)

    def _from_data(self, batch: Batch) -> tuple[Inputs, Inputs | None]:
        run = lambda inputs: self.forward(self.weights, inputs)  # noqa: E731
        named = feeding.named(batch, self.signature, self.name)
        return feeding.examples(named, self.module, run, self.fixed_batch or 2, self.name)

    def _grown(self) -> tuple[Inputs, Named] | None:
        """Samples of other shapes that the module takes as well, if it does."""
        if self.fixed_batch is not None or (self._stated and not self._learned):
            return None
        for larger in longer(self.example) if self._varied is None else (self._varied,):
            outputs = self._tried(larger)
            if outputs is not None:
                return larger, outputs
        return None

    def _tried(self, inputs: Inputs) -> Named | None:
        with contextlib.suppress(Exception), torch.no_grad():
            if self._fronts:
                tape, _, _ = self._record(self.weights, inputs, False)
                return tape.run(self.weights, inputs)
            return self.forward(self.weights, inputs)
        return None

    def _record(self, weights: Weights, inputs: Named, grad: bool) -> tuple[Tape, Named, tuple[Front, ...]]:
        if grad:
            # Buffers take no gradients, and some operators insist that they do not.
            leaves = {
                key: tensor.detach().requires_grad_(key in self._trainable) for key, tensor in weights.items()
            }
            with torch.enable_grad():
                tape, outputs = record(self.forward, leaves, inputs, module=self.module)
        else:
            with torch.no_grad():
                tape, outputs = record(self.forward, weights, inputs, module=self.module)
        ahead = fronts(tape, tape.floating(weights, inputs))
        return tape.with_outputs({front.name: front.slot for front in ahead}), outputs, ahead

    def _take_survey(self) -> None:
        one = self.example
        other = self.samples(samples_of(one), 1)
        with torch.no_grad():
            tape, recorded, ahead = self._record(self.weights, one, False)
            if tape.random is not None:
                raise AdapterError(
                    f"{self.name} is random: {tape.random} draws random numbers; "
                    f"switch it off, for example with eval()"
                )
            if not _same(self.forward(self.weights, one), recorded):
                raise AdapterError(
                    f"{self.name} is random: the same input twice gives two results; remove what is random"
                )
            obstacle = tape.obstacle
            if obstacle is None and not tape.cuts()[0]:
                obstacle = "an operator that overwrites its input"
            surveyed = survey(tape, self.weights, embeddings=self._embeddings)
            uses = [use for group in surveyed.uses.values() for use in group]
            layouts, replayed = measure_layouts(tape, uses, self.weights, other, one)
            if obstacle is None and not _same(self.forward(self.weights, other), replayed):
                obstacle = "code outside torch"
        by_operation = dict(zip((use.operation for use in uses), layouts, strict=True))
        for name, group in surveyed.uses.items():
            self.layouts.update(((name, i), by_operation[use.operation]) for i, use in enumerate(group))
        self._places = places_of(tape, uses)
        self._foldable = scales(tape, surveyed.uses, self.weights)
        self._fronts = ahead
        self._survey, self._obstacle = surveyed, obstacle


def _same(expected: Named, actual: Named) -> bool:
    """Whether outputs agree to rounding."""
    return disagreement(expected, arrays(actual))[1] <= _TOLERANCE
