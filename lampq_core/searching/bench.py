"""What plans are measured on: the float model, the truth of its outputs, and how layers are quantized."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lampq.core.measuring.interaction import Interaction, InteractionBuilder, mean_interaction
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import Setting, rounded_weight
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.problem import Problem
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet, rest

Quantizer: TypeAlias = Callable[[int, int], np.ndarray | Setting]
"""Gives a layer (by index) at an option (by index): its weight, dequantized, in the shape of the layer's record, or a
setting where the layer's input is rounded too."""

Judge: TypeAlias = Callable[[np.ndarray], float]
"""Measures a plan, options by index, shape (L,): nats."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Single-layer measurements around a plan, or around the float model.

    Attributes:
        interaction: Of the differences to the centre's logits.
        kl: Damage to the float model with the one layer moved, mean nats, shape (L, J); NaN where not measured.
    """

    interaction: Interaction
    kl: np.ndarray


def within_reach(options: int, reach: int) -> np.ndarray:
    """Options at most `reach` places apart, bool, shape (J, J)."""
    place = np.arange(options)
    return np.abs(place[:, None] - place) <= reach


class Bench:
    """Runs plans. Weights are quantized when they are needed, and those of the last plan are kept.

    Args:
        model: The float model.
        layers: Its L records.
        widths: Weight bits of the J options, increasing.
        problem: Limits, ties, pins and allowed options, (L, J).
        reference: Calibration inputs, and what counts as the truth of them.
        quantizer: How weights are quantized; None rounds to the nearest level (`core.quantizing.quantizer`).
        judge: How plans are measured; None takes their damage on the inputs.
        journal: Keeps every plan that is measured, and every layer and option around one.

    Attributes:
        model: The float model.
        layers: Its records.
        widths: Weight bits of the options.
        problem: Limits, ties, pins and allowed options.
        reference: Calibration inputs, and what counts as the truth of them.
        journal: Keeps what is measured.
        measured: Damage of every plan measured, nats, by the bytes of its options (int64).

    Raises:
        RecordError: The problem is of other layers or options.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[Layer | Product],
        widths: Sequence[int],
        problem: Problem,
        reference: Reference,
        *,
        quantizer: Quantizer | None = None,
        judge: Judge | None = None,
        journal: Journal = NOWHERE,
    ) -> None:
        if problem.cost.shape != (len(layers), len(widths)):
            raise RecordError(
                f"a problem of {problem.cost.shape} does not fit {len(layers)} layers x {len(widths)} widths"
            )
        self.measured: dict[bytes, float] = {}
        self.model, self.layers, self.widths, self.problem = model, layers, widths, problem
        self.reference, self.journal = reference, journal
        self._judge = judge
        self._quantized = self._nearest if quantizer is None else quantizer
        self._current: dict[str, tuple[int, np.ndarray | Setting]] = {}
        reduction = problem.reduced()
        # Pinned and tied layers are free where their group is.
        self._allowed = np.isfinite(reduction.problem.cost)[reduction.groups]

    def best(self, plans: Sequence[np.ndarray], progress: Progress = quiet) -> tuple[np.ndarray, float]:
        """Measure plans; the one of least damage and its damage.

        Raises:
            RecordError: A plan breaks a limit, or outputs are not finite.
        """
        for done, plan in enumerate(plans, start=1):
            self._check(plan)
            damage = self.journal.array(f"plan {_name(plan)}", (), functools.partial(self._damage, plan))
            self.measured[plan.tobytes()] = float(damage)
            progress("measuring plans", done, len(plans))
        best = min(plans, key=lambda plan: self.measured[plan.tobytes()])
        return best, self.measured[best.tobytes()]

    def around(
        self,
        choice: np.ndarray | None,
        near: np.ndarray | None = None,
        *,
        progress: Progress = quiet,
        what: str = "measuring layers",
    ) -> Measured:
        """Move one layer at a time and keep the interaction of the output differences, never the differences.

        Args:
            choice: The plan that all other layers keep, int64, shape (L,); None leaves them float.
            near: Which options a layer is moved to from which, bool, shape (J, J); None: to all allowed ones.
            progress: Told what is being done.
            what: What that is.

        Raises:
            RecordError: The plan breaks a limit, or outputs are not finite (names the layer).
        """
        moved = self._allowed.copy()
        if choice is not None:
            self._check(choice)
            moved &= True if near is None else near[choice]
            moved[np.arange(len(choice)), choice] = False
        slices = self.reference.slices()
        steps = [int(count) * rest(index, len(moved)) for index, count in enumerate(moved.sum(axis=1))]
        total, done = len(slices) * sum(steps), 0

        def step(index: int) -> None:
            nonlocal done
            done += rest(index, len(moved))
            progress(what, done, total)

        own = self.journal.within(f"around {_name(choice)}")
        parts = [
            (share, self._around(part, choice, moved, own.within(str(number)), step))
            for number, (share, part) in enumerate(slices)
        ]
        return Measured(
            interaction=mean_interaction([(share, part.interaction) for share, part in parts]),
            kl=np.sum([share * part.kl for share, part in parts], axis=0),
        )

    def _around(
        self,
        reference: Reference,
        choice: np.ndarray | None,
        moved: np.ndarray,
        journal: Journal,
        step: Callable[[int], None],
    ) -> Measured:
        """`around` for some of the samples."""
        layers, options = moved.shape
        model = self.model if choice is None else self.model.with_weights(self._weights(choice))
        centre = reference.outputs if choice is None else self._centre(model, reference)
        builder = InteractionBuilder(
            reference.readout,
            reference.outputs,
            layers=layers,
            options=options,
            centre=None if choice is None else centre,
        )
        kl = np.full((layers, options), np.nan)
        for layer, option in enumerate([] if choice is None else choice.tolist()):
            builder.keep(layer, option)
            kl[layer, option] = reference.damage(centre)
        position = {layer.name: index for index, layer in enumerate(self.layers)}
        tables = {**builder.tables, "kl": kl}

        def candidates() -> Iterator[tuple[str, int, np.ndarray | Setting]]:
            for index, layer in enumerate(self.layers):
                for option in np.flatnonzero(moved[index]).tolist():
                    if journal.recall(f"{index} {option}", tables, (index, option)):
                        step(index)
                    else:
                        yield layer.name, option, self._quantized(index, option)

        for name, option, outputs in model.sweep(reference.inputs, candidates()):
            index = position[name]
            reference.checked(outputs, f"the model with layer {name} at {self.widths[option]} bits")
            builder.add(index, option, outputs.minus(centre))
            kl[index, option] = reference.damage(outputs)
            journal.keep(f"{index} {option}", tables, (index, option))
            step(index)
        return Measured(interaction=builder.build(), kl=kl)

    def _damage(self, choice: np.ndarray) -> float:
        if self._judge is not None:
            return self._judge(choice)
        return damage(self.model.with_weights(self._weights(choice)), self.reference)

    def _centre(self, model: Model, reference: Reference) -> Batch:
        outputs = reference.checked(model.run(reference.inputs), "the quantized model")
        return reference.readout.reference(outputs, reference.inputs)

    def _weights(self, choice: np.ndarray) -> Mapping[str, np.ndarray | Setting]:
        for index, (layer, option) in enumerate(zip(self.layers, choice.tolist(), strict=True)):
            current = self._current.get(layer.name)
            if current is None or current[0] != option:
                self._current[layer.name] = (option, self._quantized(index, option))
        return {name: array for name, (_, array) in self._current.items()}

    def _nearest(self, index: int, option: int) -> np.ndarray:
        layer = self.layers[index]
        if isinstance(layer, Product):
            raise RecordError(f"product {layer.name} has no weight to round; say how its factors are")
        return rounded_weight(self.model, layer, self.widths[option])

    def _check(self, choice: np.ndarray) -> None:
        problem = self.problem
        layers, options = problem.cost.shape
        if choice.shape != (layers,) or ((choice < 0) | (choice >= options)).any():
            raise RecordError(f"a plan to measure is no choice of {layers} options")
        over = problem.usage(choice) > problem.limits
        if over.any():
            name = problem.resource_names[int(over.argmax())]
            raise RecordError(f"a plan to measure exceeds the limit of {name}")


def _name(choice: np.ndarray | None) -> str:
    """A choice as journals know it."""
    return "float" if choice is None else " ".join(map(str, choice.tolist()))
