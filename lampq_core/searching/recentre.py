"""Rounds of measuring around the current quantized plan: superposition made exact to first order where it matters.

Far below 3 bits the layers' errors no longer just add up. Differences measured with all other layers already
quantized include what those do, so the prediction around the plan is right where the search looks next. This is
the quantization-aware form of LampQ's update (Kim et al., AAAI 2026, arXiv:2511.10004), for any number of layers at
once, and a round counts only when the measured damage falls.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.interaction import Interaction, InteractionBuilder, mean_interaction
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage, measure_reference
from lampq.core.measuring.setting import Setting, rounded_weight
from lampq.core.searching.superposition import allocate
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.history import Round
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.problem import Problem
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet

Quantizer = Callable[[int, int], np.ndarray | Setting]
"""Gives a layer (by index) at an option (by index): its weight, dequantized, in the shape of the layer's record, or a
setting where the layer's input is rounded too."""

Judge = Callable[[np.ndarray], float]
"""Measures a plan, options by index, shape (L,): nats."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refined:
    """Where the rounds ended.

    Attributes:
        choice: Option per layer, int64, shape (L,).
        kl: Its measured damage on the calibration data, nats: the least of all plans measured.
        predicted: What the last interaction predicted for it before it was measured, nats; NaN for a plan given.
        rounds: What happened.
    """

    choice: np.ndarray
    kl: float
    predicted: float
    rounds: tuple[Round, ...]


def refine(
    model: Model,
    layers: Sequence[Layer | Product],
    widths: Sequence[int],
    problem: Problem,
    batch: BatchLike,
    plans: Iterable[np.ndarray],
    *,
    rounds: int = 2,
    reach: int = 1,
    near: np.ndarray | None = None,
    tries: int = 8,
    reference: Reference | None = None,
    quantizer: Quantizer | None = None,
    judge: Judge | None = None,
    seed: int = 0,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Refined:
    """Measure plans, then improve the best one round by round.

    A round measures the logits with one layer at a time moved to its neighbouring widths and all others as in the
    plan, searches with the interaction of these differences, and measures the best plans found. The rounds end
    when none of them has less measured damage than the plan before, so the result is never worse than any plan
    given: pass the uniform plan to be never worse than that.

    Args:
        model: The float model.
        layers: Its L records.
        widths: Weight bits of the J options, increasing.
        problem: Limits, ties, pins and allowed options, (L, J).
        batch: Calibration inputs, samples first.
        plans: Plans to begin with, each of shape (L,), within the limits.
        rounds: The most rounds; a round takes about as long as L / 2 * (options in reach) runs of the batch.
        reach: How many options up and down a round looks at, >= 1.
        near: Instead of `reach`: which options a round looks at from which, bool, shape (J, J).
        tries: Plans that a round measures, >= 1.
        reference: What counts as the truth of the batch; None runs the model.
        quantizer: How weights are quantized; None rounds to the nearest level (`core.quantizing.quantizer`).
        judge: How plans are measured; None takes their damage on the batch.
        seed: Of the search.
        journal: Keeps every plan that is measured and every layer and option of a round.
        progress: Told what is being done.

    Raises:
        RecordError: A plan breaks a limit, or logits are not finite (names the layer).
        BudgetError: No plan was given.
    """
    if reach < 1 or tries < 1 or rounds < 0:
        raise RecordError(f"rounds {rounds}, reach {reach}, tries {tries}: at least 0, 1 and 1")
    bench = _Bench(model, layers, widths, problem, batch, reference, quantizer, journal, judge)
    near = _within(len(widths), reach) if near is None else near
    begun = time.perf_counter()
    distinct = {
        np.asarray(plan, dtype=np.int64).tobytes(): np.asarray(plan, dtype=np.int64) for plan in plans
    }
    if not distinct:
        raise BudgetError("no plan within the limits to begin with; relax a limit")
    choice, kl = bench.best(list(distinct.values()), progress)
    predicted = np.nan
    log = [
        Round(
            number=0,
            measured=kl,
            moved=0,
            tried=len(distinct),
            accepted=True,
            seconds=time.perf_counter() - begun,
        )
    ]
    for number in range(1, rounds + 1):
        begun = time.perf_counter()
        what = f"round {number}: measuring around the plan"
        interaction = bench.around(choice, near, progress, what).interaction
        found = allocate(interaction, problem, [choice], seed=seed, keep=tries + 1, bound_limit_s=0)
        new = [index for index, plan in enumerate(found.choices) if plan.tobytes() not in bench.measured]
        if not new:
            break
        plan, measured = bench.best([found.choices[index] for index in new[:tries]], progress)
        expected = float(interaction.predict(plan))
        accepted = measured < kl
        log.append(
            Round(
                number=number,
                before=kl,
                predicted=expected,
                measured=measured,
                moved=int((plan != choice).sum()),
                tried=len(new[:tries]),
                accepted=accepted,
                seconds=time.perf_counter() - begun,
            )
        )
        if not accepted:
            break
        choice, kl, predicted = plan, measured, expected
    return Refined(choice=choice, kl=kl, predicted=predicted, rounds=tuple(log))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Single-layer measurements around a plan, or around the float model.

    Attributes:
        interaction: Of the differences to the centre's logits.
        kl: Damage to the float model with the one layer moved, mean nats, shape (L, J); NaN where not measured.
    """

    interaction: Interaction
    kl: np.ndarray


def measure_interaction(
    model: Model,
    layers: Sequence[Layer | Product],
    widths: Sequence[int],
    problem: Problem,
    batch: BatchLike,
    choice: np.ndarray | None = None,
    *,
    reach: int = 1,
    reference: Reference | None = None,
    quantizer: Quantizer | None = None,
    progress: Progress = quiet,
) -> Measured:
    """Move one layer at a time and keep the interaction of the logit differences, never the differences.

    Args:
        model: The float model.
        layers: Its L records.
        widths: Weight bits of the J options, increasing.
        problem: Tells which options are allowed, (L, J); the others are not measured.
        batch: Calibration inputs, samples first.
        choice: The plan that all other layers keep, shape (L,), with neighbours up to `reach` options away; None
            leaves the other layers float and measures every allowed option.
        reach: See `refine`, as the arguments that follow.
        reference: See `refine`.
        quantizer: See `refine`.
        progress: Told what is being done.

    Raises:
        RecordError: The plan breaks a limit, or logits are not finite (names the layer).
    """
    bench = _Bench(model, layers, widths, problem, batch, reference, quantizer)
    at = None if choice is None else np.asarray(choice, dtype=np.int64)
    return bench.around(at, _within(len(widths), reach), progress, "measuring layers")


def _within(options: int, reach: int) -> np.ndarray:
    """Options at most `reach` places apart, bool, shape (J, J)."""
    place = np.arange(options)
    return np.abs(place[:, None] - place) <= reach


def _name(choice: np.ndarray | None) -> str:
    """A choice as journals know it."""
    return "float" if choice is None else " ".join(map(str, choice.tolist()))


class _Bench:
    """Runs plans. Weights are quantized when they are needed, and those of the last plan are kept."""

    def __init__(
        self,
        model: Model,
        layers: Sequence[Layer | Product],
        widths: Sequence[int],
        problem: Problem,
        batch: BatchLike,
        reference: Reference | None,
        quantizer: Quantizer | None,
        journal: Journal = NOWHERE,
        judge: Judge | None = None,
    ) -> None:
        if problem.cost.shape != (len(layers), len(widths)):
            raise RecordError(
                f"a problem of {problem.cost.shape} does not fit {len(layers)} layers x {len(widths)} widths"
            )
        self.measured: dict[bytes, float] = {}
        self._model = model
        self._layers = layers
        self._widths = widths
        self._problem = problem
        self._judge = judge
        self._quantized = self._nearest if quantizer is None else quantizer
        self._reference = measure_reference(model, batch) if reference is None else reference
        self._journal = journal
        self._kept: dict[str, tuple[int, np.ndarray | Setting]] = {}
        reduction = problem.reduced()
        # Pinned and tied layers are free where their group is.
        self._allowed = np.isfinite(reduction.problem.cost)[reduction.groups]

    def best(self, plans: Sequence[np.ndarray], progress: Progress) -> tuple[np.ndarray, float]:
        """Measure plans; the one of least damage and its damage."""
        for done, plan in enumerate(plans, start=1):
            self._check(plan)
            damage = self._journal.array(f"plan {_name(plan)}", (), functools.partial(self._damage, plan))
            self.measured[plan.tobytes()] = float(damage)
            progress("measuring plans", done, len(plans))
        best = min(plans, key=lambda plan: self.measured[plan.tobytes()])
        return best, self.measured[best.tobytes()]

    def around(self, choice: np.ndarray | None, near: np.ndarray, progress: Progress, what: str) -> Measured:
        """Move one layer to options nearby, all others at the plan; or to any option, all others float."""
        moved = self._allowed.copy()
        if choice is not None:
            self._check(choice)
            moved &= near[choice]
            moved[np.arange(len(choice)), choice] = False
        slices = self._reference.slices()
        total, done = len(slices) * int(moved.sum()), 0

        def step() -> None:
            nonlocal done
            done += 1
            progress(what, done, total)

        own = self._journal.within(f"around {_name(choice)}")
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
        step: Callable[[], None],
    ) -> Measured:
        """`around` for some of the samples."""
        layers, options = moved.shape
        model = self._model if choice is None else self._model.with_weights(self._weights(choice))
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
        position = {layer.name: index for index, layer in enumerate(self._layers)}
        tables = {**builder.tables, "kl": kl}

        def candidates() -> Iterator[tuple[str, int, np.ndarray | Setting]]:
            for index, layer in enumerate(self._layers):
                for option in np.flatnonzero(moved[index]).tolist():
                    if journal.recall(f"{index} {option}", tables, (index, option)):
                        step()
                    else:
                        yield layer.name, option, self._quantized(index, option)

        for name, option, outputs in model.sweep(reference.inputs, candidates()):
            index = position[name]
            reference.checked(outputs, f"the model with layer {name} at {self._widths[option]} bits")
            builder.add(index, option, outputs.minus(centre))
            kl[index, option] = reference.damage(outputs)
            journal.keep(f"{index} {option}", tables, (index, option))
            step()
        return Measured(interaction=builder.build(), kl=kl)

    def _damage(self, choice: np.ndarray) -> float:
        if self._judge is not None:
            return self._judge(choice)
        return damage(self._model.with_weights(self._weights(choice)), self._reference)

    def _centre(self, model: Model, reference: Reference) -> Batch:
        outputs = reference.checked(model.run(reference.inputs), "the quantized model")
        return reference.readout.reference(outputs, reference.inputs)

    def _weights(self, choice: np.ndarray) -> Mapping[str, np.ndarray | Setting]:
        for index, (layer, option) in enumerate(zip(self._layers, choice.tolist(), strict=True)):
            kept = self._kept.get(layer.name)
            if kept is None or kept[0] != option:
                self._kept[layer.name] = (option, self._quantized(index, option))
        return {name: array for name, (_, array) in self._kept.items()}

    def _nearest(self, index: int, option: int) -> np.ndarray:
        layer = self._layers[index]
        if isinstance(layer, Product):
            raise RecordError(f"product {layer.name} has no weight to round; say how its factors are")
        return rounded_weight(self._model, layer, self._widths[option])

    def _check(self, choice: np.ndarray) -> None:
        problem = self._problem
        layers, options = problem.cost.shape
        if choice.shape != (layers,) or ((choice < 0) | (choice >= options)).any():
            raise RecordError(f"a plan to measure is no choice of {layers} options")
        over = problem.usage(choice) > problem.limits
        if over.any():
            name = problem.resource_names[int(over.argmax())]
            raise RecordError(f"a plan to measure exceeds the limit of {name}")
