"""A module made runnable, recordable and surveyed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lampq.adapters.torch import feeding, hugging_face_inputs
from lampq.adapters.torch.chunks import Chunk, filled_up, samples_of, split
from lampq.adapters.torch.devices import device_of
from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.findings import Findings
from lampq.adapters.torch.forward_pass import ForwardPass
from lampq.adapters.torch.inputs import Inputs, find_example, longer, vary
from lampq.adapters.torch.kernels import plain_products
from lampq.adapters.torch.layout import Layout
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.specs import Specs, describe
from lampq.adapters.torch.survey import Survey, survey
from lampq.adapters.torch.tape import Named, Tape
from lampq.adapters.torch.uses import Use
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError

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


_RECORDINGS_KEPT = 8


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
        forward: The module as a function of its weights and inputs.
        device: Where it runs.
        batch_size: Samples per run.
        fixed_batch: The only number of samples the module takes, or None.
        signature: What the module takes.
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
        self.signature = signature or Signature.of(module)
        on_device = dataclasses.replace(execution, device=str(self.device))
        self.forward = ForwardPass(module, name, self.signature, on_device)
        self.module, self.weights = self.forward.module, self.forward.weights
        self.name = name
        self.autocast = execution.autocast
        self.batch_size = fixed_batch or execution.batch_size
        self.fixed_batch = fixed_batch
        shapes = {} if input_shape is None else input_shape
        self._shapes = dict(shapes) if isinstance(shapes, Mapping) else {"": tuple(shapes)}
        self._embeddings = embeddings
        self._forget()

    def _forget(self) -> None:
        self._example: Inputs | None = None
        self._varied: Inputs | None = None
        self._learned = False
        self._specs: Specs | None = None
        self._findings: Findings | None = None
        self._recordings: dict[tuple[Any, ...], Recording] = {}

    def outputs(self, weights: Weights, inputs: Named) -> dict[str, torch.Tensor]:
        """All outputs, and what stands for some of them, without gradients, for inputs that may not fit.

        Raises:
            AdapterError: The module fails on them.
        """
        with torch.no_grad(), self.forward.fed(inputs):
            if self.findings.fronts:
                return self.recording(inputs, weights).tape.run(weights, inputs)
            return self.forward(weights, inputs)

    @property
    def _stated(self) -> bool:
        """Whether the user or a configuration says the shapes."""
        return bool(self._shapes) or hugging_face_inputs.states_images(self.module)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values of all parameters and buffers."""
        return self.forward.digest()

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
    def example_shapes(self) -> dict[str, Shape]:
        """Shape of a sample of each input of the example."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.example.items()}

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

    def learn(self, batch: Batch) -> None:
        """Take the shapes and types of data for those of the inputs, where nothing else has told them yet.

        Raises:
            AdapterError: The module does not take them.
        """
        if self._example is None and not self._shapes:
            self._example, self._varied = self._from_data(batch)
            self._learned = True

    def with_inner(self, names: tuple[str, ...]) -> Runtime:
        """The same module with outputs of submodules among its own."""
        other = copy.copy(self)
        example, varied, learned = self._example, self._varied, self._learned
        other._forget()
        other._example, other._varied, other._learned = example, varied, learned
        other.forward = self.forward.with_inner(names)
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
                fronts=self.findings.fronts,
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
        left = dataclasses.replace(self.survey, uses=uses, skipped={**self.survey.skipped, **reasons})
        other._findings = dataclasses.replace(self.findings, survey=left)
        other._recordings = {}
        return other

    @property
    def findings(self) -> Findings:
        """What a forward pass tells.

        Raises:
            AdapterError: The forward pass is random, or fails.
        """
        if self._findings is None:
            one = self.example
            other = self.samples(samples_of(one), 1)
            self._findings = Findings.of(
                self.forward, one, other, name=self.name, embeddings=self._embeddings
            )
        return self._findings

    @property
    def survey(self) -> Survey:
        """Where the model multiplies by its weights; raises what `findings` does."""
        return self.findings.survey

    @property
    def obstacle(self) -> str | None:
        """The operator that makes each batch take its own course; None where one tape serves them all."""
        return self.findings.obstacle

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
        with self.forward.fed(inputs), plain_products() if products else contextlib.nullcontext():
            tape, _, _ = self.forward.record(self.weights if weights is None else weights, inputs, grad=grad)
        fused = next((op for op in tape.operations if "attention" in op.name), None)
        if products and fused is not None:
            raise AdapterError(
                f"{self.name}: {fused.name} in {fused.module or 'the model'} is one operator, whose factors "
                f"cannot be rounded; leave the products of attention float"
            )
        surveyed = survey(tape, self.weights, embeddings=self._embeddings)
        uses = [
            (use, self.findings.layouts.get((name, place)))
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
        self.learn(batch)
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
            if self.findings.fronts:
                tape, _, _ = self.forward.record(self.weights, inputs, grad=False)
                return tape.run(self.weights, inputs)
            return self.forward(self.weights, inputs)
        return None
