"""LampQ's error-based update of a plan, as published, on any model.

One layer goes up a bit, another down, for as long as the quantized model improves on the calibration data. Which
two is decided by the relative error of the layers' outputs, with the float input on one side and the input that
the quantized network really gives the layer on the other: L_i(B) = ||W_hat X_hat - W X||^2 / ||W X||^2.

Source: Kim et al., AAAI 2026, arXiv:2511.10004. Three things in the print cannot be meant; our reading is: the gain
of a bit is L(B) - L(B + 1) and the degradation L(B - 1) - L(B), not the other way round; since layers differ in
size, only swaps that keep within the limits are made; and the errors, which are relative, may be weighted by the
layers' sensitivity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lampq.core.measuring.encoding import encoder
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference
from lampq.core.measuring.setting import Setting
from lampq.core.quantizing.quantizer import as_rows, from_rows
from lampq.core.searching.bench import Bench
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian_error import error_table
from lampq.core.values.history import Swap
from lampq.core.values.layer import Layer
from lampq.core.values.problem import Problem
from lampq.core.values.progress import Progress, quiet

OptionRules: TypeAlias = Callable[[int, int], ActivationRule | None]
"""How the input of a layer is rounded at an option, both by index; None: it stays float."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Updated:
    """The plan after the update.

    Attributes:
        choice: Option per layer, int64, shape (L,).
        kl: Its measured damage on the calibration data, nats; never above that of the plan given.
        swaps: What was tried, in order.
    """

    choice: np.ndarray
    kl: float
    swaps: tuple[Swap, ...]


def is_consecutive(widths: Sequence[int]) -> bool:
    """Whether each width is one more than the one before, as the update by single bits needs."""
    return list(widths) == list(range(widths[0], widths[-1] + 1))


def update(
    bench: Bench,
    choice: np.ndarray,
    *,
    table: str = "measured",
    importance: np.ndarray | None = None,
    most_swaps: int = 50,
    rules: OptionRules | None = None,
    progress: Progress = quiet,
) -> Updated:
    """Swap single bits between layers while the measured damage falls.

    Convolutions and embedding tables keep their widths, as do layers that are pinned or tied: the method is
    about the matrices of the blocks.

    Args:
        bench: The model, its L layers, and J widths increasing by one; keeps every swap.
        choice: The plan to begin with, within the limits, shape (L,).
        table: How errors of the neighbouring widths are known: `measured`, or predicted from the measured error
            of the current width by a table of `error_table`: `paper`, `minmax(r)`, `mse`.
        importance: Weight of each layer's error, shape (L,); None weighs all the same, as published.
        most_swaps: The most swaps to try.
        rules: How the input of a layer is rounded at an option (both by index), where inputs are rounded too: a swap
            then moves weights and inputs together.
        progress: Told after every swap.

    Raises:
        RecordError: The table is unknown, the widths have gaps, or logits are not finite.
    """
    model, problem, reference, widths = bench.model, bench.problem, bench.reference, bench.widths
    layers = [layer for layer in bench.layers if isinstance(layer, Layer)]
    if not is_consecutive(widths):
        raise RecordError(f"widths {tuple(widths)}: the update moves by single bits and needs all in between")
    ratios = None if table == "measured" else error_table(table)[np.asarray(widths) - 1]
    weights = _Weights(model, layers, widths, rules)
    choice = np.asarray(choice, dtype=np.int64).copy()
    current = weights.applied(choice)
    own = bench.journal.within("swaps")
    kl = float(own.array("first", (), lambda: _damage(reference, current)))
    movable = _movable(layers, problem)
    swaps: list[Swap] = []
    while len(swaps) < most_swaps:
        measure = functools.partial(
            _errors, model, current, weights, reference.inputs, choice, movable, len(widths), ratios
        )
        errors = own.array(f"{len(swaps)} errors", problem.cost.shape, measure)
        if importance is not None:
            errors = errors * np.asarray(importance, dtype=np.float64)[:, None]
        swap = _best_swap(errors, problem, choice)
        if swap is None:
            break
        raised, lowered, gain, degradation = swap
        trial = choice.copy()
        trial[raised] += 1
        trial[lowered] -= 1
        swapped = weights.applied(trial)
        damage = functools.partial(_damage, reference, swapped)
        after = float(own.array(f"{len(swaps)} damage", (), damage))
        kept = after < kl
        swaps.append(
            Swap(raised=raised, lowered=lowered, gain=gain, degradation=degradation, kl=after, kept=kept)
        )
        progress("swapping bits", len(swaps), most_swaps)
        if not kept:
            break
        choice, current, kl = trial, swapped, after
    return Updated(choice=choice, kl=kl, swaps=tuple(swaps))


class _Weights:
    """Quantized weights, made when needed, and how inputs are rounded."""

    def __init__(
        self, model: Model, layers: Sequence[Layer], widths: Sequence[int], rules: OptionRules | None
    ) -> None:
        self.layers = layers
        self._rules = rules
        self._model = model
        self._widths = widths

    def float_rows(self, index: int) -> np.ndarray:
        layer = self.layers[index]
        return as_rows(self._model.weight(layer.name), layer.channel_axis)

    def rows(self, index: int, option: int) -> np.ndarray:
        layer = self.layers[index]
        quantized = encoder(self._model, layer.name, layer.channel_axis)(self._widths[option])
        return quantized.dequantized().reshape(layer.channels, -1)

    def rounded(self, index: int, option: int, inputs: np.ndarray) -> np.ndarray:
        """Inputs of a layer, features last, as it has them at an option."""
        rule = None if self._rules is None else self._rules(index, option)
        return inputs if rule is None else rule.apply(inputs)

    def applied(self, choice: np.ndarray) -> Model:
        settings: dict[str, np.ndarray | Setting] = {}
        for index, (layer, option) in enumerate(zip(self.layers, choice.tolist(), strict=True)):
            weight = from_rows(self.rows(index, option), layer.shape, layer.channel_axis)
            rule = None if self._rules is None else self._rules(index, option)
            settings[layer.name] = weight if self._rules is None else Setting(weight=weight, activation=rule)
        return self._model.with_weights(settings)


def _movable(layers: Sequence[Layer], problem: Problem) -> np.ndarray:
    """Layers that the method may move, bool, shape (L,)."""
    movable = np.array([len(layer.shape) == 2 and layer.kind != "embedding" for layer in layers])
    movable[[*problem.pins, *(layer for tie in problem.ties for layer in tie)]] = False
    return movable


def _damage(reference: Reference, model: Model) -> float:
    return reference.damage(reference.checked(model.run(reference.inputs), "the quantized model"))


def _errors(
    model: Model,
    quantized: Model,
    weights: _Weights,
    batch: Batch,
    choice: np.ndarray,
    movable: np.ndarray,
    options: int,
    ratios: np.ndarray | None,
) -> np.ndarray:
    """Relative output error of each layer, at least at its width and one up and down, shape (L, J); or else NaN.

    Inputs of both networks arrive piece by piece, in the same order.
    """
    position = {layer.name: index for index, layer in enumerate(weights.layers) if movable[index]}
    squares = np.zeros((len(choice), options))
    power = np.zeros(len(choice))
    held: tuple[int, np.ndarray, dict[int, np.ndarray]] | None = None
    for (name, inputs, _), (_, quantized_inputs, _) in zip(
        model.taps(batch), quantized.taps(batch), strict=True
    ):
        index = position.get(name)
        if index is None:
            continue
        at = int(choice[index])
        near = [at] if ratios is not None else range(max(at - 1, 0), min(at + 2, options))
        if held is None or held[0] != index:
            held = (index, weights.float_rows(index), {j: weights.rows(index, j) for j in near})
        exact = inputs.reshape(-1, held[1].shape[1]) @ held[1].T
        rounded_inputs = quantized_inputs.reshape(-1, held[1].shape[1])
        power[index] += float(np.square(exact, dtype=np.float64).sum())
        for option, rows in held[2].items():
            rounded = weights.rounded(index, option, rounded_inputs)
            squares[index, option] += float(np.square(rounded @ rows.T - exact, dtype=np.float64).sum())
    errors = np.full(squares.shape, np.nan)
    for row in np.flatnonzero(movable & (power > 0)):
        at = int(choice[row])
        if ratios is not None:
            errors[row] = squares[row, at] / power[row] * ratios / ratios[at]
        else:
            tried = slice(max(at - 1, 0), at + 2)
            errors[row, tried] = squares[row, tried] / power[row]
    return errors


def _best_swap(
    errors: np.ndarray, problem: Problem, choice: np.ndarray
) -> tuple[int, int, float, float] | None:
    """The pair (raised, lowered) within the limits of which gain minus degradation is largest; None if none fits."""
    layers, options = problem.cost.shape
    every = np.arange(layers)
    up, down = np.minimum(choice + 1, options - 1), np.maximum(choice - 1, 0)
    allowed = np.isfinite(problem.cost)
    gain = np.where((up > choice) & allowed[every, up], errors[every, choice] - errors[every, up], np.nan)
    loss = np.where(
        (down < choice) & allowed[every, down], errors[every, down] - errors[every, choice], np.nan
    )
    more = problem.resources[:, every, up] - problem.resources[:, every, choice]
    less = problem.resources[:, every, choice] - problem.resources[:, every, down]
    room = problem.limits - problem.usage(choice)
    fits = (more[:, :, None] - less[:, None, :] <= room[:, None, None]).all(axis=0)
    np.fill_diagonal(fits, False)
    worth = np.where(fits, gain[:, None] - loss[None, :], np.nan)
    if np.isnan(worth).all():
        return None
    raised, lowered = divmod(int(np.nanargmax(worth)), layers)
    return raised, lowered, float(gain[raised]), float(loss[lowered])
