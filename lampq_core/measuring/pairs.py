"""Damage of every pair of a weight width and an input width, with as few runs as superposition allows.

With W weight widths and A input widths a layer has W * A options. Rounding the weights moves the logits by one
difference, rounding the input by another, and both together by nearly their sum: what the sum leaves out is the
product of the two errors, which matters at the narrowest widths alone. So the W + A single differences are measured,
then pairs from the narrowest upwards, and where the sum predicts the damage of a pair to within a tolerance, the
pairs above it are taken from the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.encoding import encoder
from lampq.core.measuring.measure import Collector, Damage
from lampq.core.measuring.reference import Reference
from lampq.core.measuring.setting import Setting
from lampq.core.quantizing.quantizer import weight_of
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet, rest

# Below this many nats a difference of two damages is rounding of the logits.
_NOISE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairDamage:
    """Single-layer measurements at pairs of widths.

    Attributes:
        damage: As `measure_damage` gives it, one column per option.
        measured: Which options were run, the others taken from sums, bool, shape (L, J).
        deviation: Relative error of the sum's damage at the options that were run, shape (L, J), NaN elsewhere.
        runs: Candidates run in all.
        tolerance: Error that was accepted.
    """

    damage: Damage
    measured: np.ndarray
    deviation: np.ndarray
    runs: int
    tolerance: float

    def summary(self) -> dict[str, float | int]:
        """For the provenance: runs, options in all, and the largest relative error of a sum that was accepted."""
        checked = self.deviation[np.isfinite(self.deviation)]
        accepted = checked[checked <= self.tolerance]
        return {
            "runs": self.runs,
            "options": int(self.measured.size),
            "summed": int((~self.measured).sum()),
            "largest_accepted_error": float(accepted.max(initial=0.0)),
        }


def measure_pairs(
    candidates: Candidates,
    reference: Reference,
    *,
    tolerance: float = 0.1,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> PairDamage:
    """Round the weights and the input of one layer at a time and measure how the predictions move.

    Args:
        candidates: Layers of a model that takes settings, in model order, products of activations behind them, and
            pairs of widths, increasing, all with an input width.
        reference: Calibration inputs, and what the float model makes of them.
        tolerance: Relative error of a predicted damage that is accepted; 0 measures every pair.
        journal: Keeps every layer.
        progress: Told after every layer.

    Raises:
        RecordError: Logits are not finite; names the layer. Or the candidates have no rules.
    """
    options, allowed = candidates.options, candidates.available
    rules, left = candidates.rules, candidates.left
    if rules is None:
        raise RecordError("pairs of widths need rules of how inputs are rounded")
    layers: list[Layer | Product] = [*candidates.layers, *candidates.products]
    table = (len(layers), len(options))
    collector, own = Collector(reference, table), journal.within("pairs")
    kl, error, steps = collector.kl, collector.error, collector.steps
    measured, deviation, runs = np.zeros(table, dtype=bool), np.full(table, np.nan), np.zeros(table[0], int)
    tables = {**collector.tables, "run": measured, "deviation": deviation, "runs": runs}
    search = _Order(options, tolerance)
    position = {layer.name: index for index, layer in enumerate(layers)}
    # Differences of the outputs with the layer at hand: by weight width, by input width.
    held: dict[tuple[int | None, int | None], Batch] = {}

    def summed(column: int) -> Batch:
        """Outputs moved by both differences of a pair."""
        option = options[column]
        both = held[option.weight_bits, None].plus(held[None, option.activation_bits])
        return reference.outputs.plus(both)

    def pairs() -> Iterator[tuple[str, int, Setting]]:
        for index, layer in enumerate(layers):
            if own.recall(str(index), tables, (index,)):
                continue
            held.clear()
            columns = np.flatnonzero(allowed[index]).tolist()
            widths = sorted({options[column].weight_bits for column in columns})
            settings: dict[int | None, Setting] = {None: Setting()}
            if isinstance(layer, Product):
                for bits in widths:
                    settings[bits] = Setting(left=None if left is None else left(index, bits))
            else:
                encode = encoder(candidates.model, layer.name, layer.channel_axis, widths)
                for bits in widths:
                    quantized = encode(bits)
                    weight = weight_of(quantized, layer.shape, layer.channel_axis)
                    settings[bits] = Setting(weight=weight)
                    same = [column for column in columns if options[column].weight_bits == bits]
                    error[index, same], steps[index, same] = quantized.squared_error.sum(), quantized.step
            for number, (weight_bits, input_bits) in enumerate(search.singles(columns), start=1):
                activation = None if input_bits is None else rules(index, input_bits)
                yield layer.name, -number, replace(settings[weight_bits], activation=activation)
            for column in columns:
                if search.wants(column, columns, measured[index], deviation[index]):
                    option = options[column]
                    activation = rules(index, option.activation_bits or 8)
                    yield layer.name, column, replace(settings[option.weight_bits], activation=activation)
                else:
                    collector.add(index, column, summed(column))
            own.keep(str(index), tables, (index,))
            steps_done = sum(rest(place, len(layers)) for place in range(index + 1))
            progress("measuring layers", steps_done, len(layers) * (len(layers) + 1) // 2)

    # Candidates are drawn one by one, so each may depend on what the ones before it measured.
    for name, column, outputs in candidates.model.sweep(reference.inputs, pairs()):
        index = position[name]
        runs[index] += 1
        reference.checked(outputs, f"the model with layer {name} quantized")
        if column < 0:
            single = search.singles(np.flatnonzero(allowed[index]).tolist())[-column - 1]
            held[single] = outputs.minus(reference.outputs)
            continue
        collector.add(index, column, outputs)
        measured[index, column] = True
        if held:
            predicted = reference.damage(summed(column))
            slack = max(abs(predicted - kl[index, column]) - _NOISE, 0.0)
            deviation[index, column] = slack / max(kl[index, column], _NOISE)
    return PairDamage(
        damage=collector.damage(),
        measured=measured,
        deviation=deviation,
        runs=int(runs.sum()),
        tolerance=tolerance,
    )


class _Order:
    """Which singles and pairs to run, narrow pairs first."""

    def __init__(self, options: Sequence[Option], tolerance: float) -> None:
        self._options = options
        self._tolerance = tolerance

    def singles(self, columns: Sequence[int]) -> list[tuple[int | None, int | None]]:
        """(weight bits, None) and (None, input bits) to run; none where running all pairs is no dearer."""
        chosen = [self._options[column] for column in columns]
        weights = sorted({option.weight_bits for option in chosen})
        inputs = sorted({option.activation_bits for option in chosen if option.activation_bits})
        # Besides the singles at least one pair has to be run to know how good their sums are.
        if self._tolerance <= 0 or len(weights) + len(inputs) + 1 >= len(chosen):
            return []
        return [*((bits, None) for bits in weights), *((None, bits) for bits in inputs)]

    def wants(self, column: int, columns: Sequence[int], measured: np.ndarray, deviation: np.ndarray) -> bool:
        """Whether a pair is run: no next narrower pair exists, or one of them the sums predict badly."""
        if not self.singles(columns):
            return True
        option = self._options[column]
        by_weight = [
            c
            for c in columns
            if self._options[c].activation_bits == option.activation_bits
            and self._options[c].weight_bits < option.weight_bits
        ]
        by_input = [
            c
            for c in columns
            if self._options[c].weight_bits == option.weight_bits
            and (self._options[c].activation_bits or 0) < (option.activation_bits or 0)
        ]
        narrower = [group[-1] for group in (by_weight, by_input) if group]
        return not narrower or any(measured[c] and deviation[c] > self._tolerance for c in narrower)
