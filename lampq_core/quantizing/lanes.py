"""Rows of a weight on their way to codes, several widths side by side, and the passes that choose the codes.

A lane is one row at one width. All lanes of a layer see the same inputs, so a step of a pass is one vector operation
over all of them, and what the features of a block owe to all others is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.quantizing.output_metric import OutputMetric
from lampq.core.quantizing.quantizer import Quantized

# Features handled together: their own interactions step by step, those with all others by one matrix product.
_BLOCK = 64
_TINY = np.finfo(np.float32).tiny


@dataclass(slots=True, kw_only=True, eq=False)
class Lanes:
    """value = unit * (code - zero), with codes from `lowest` to `highest`. K lanes, N features, G scales a lane.

    Attributes:
        metric: The inputs that all lanes see; features are in its order.
        weight: Float32, shape (K, N).
        codes: Whole numbers, float32, shape (K, N).
        unit: Distance of neighbouring levels, float32, shape (K, G), > 0.
        groups: Scale of every feature, int64, shape (N,).
        zero: Place of zero among the codes, float32, shape (K, 1).
        lowest: Float32, shape (K, 1).
        highest: Float32, shape (K, 1).
    """

    metric: OutputMetric
    weight: np.ndarray
    codes: np.ndarray
    unit: np.ndarray
    groups: np.ndarray
    zero: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def from_nearest(
        cls, metric: OutputMetric, rows: np.ndarray, nearest: Sequence[Quantized], *, narrow: bool
    ) -> Lanes:
        """Lanes of rows (C, N), width after width, that hold the codes nearest to the weights.

        Args:
            metric: The inputs.
            rows: Float32.
            nearest: Their codes, one for every width, in the layout of `rows` or in blocks of its rows.
            narrow: Leave out the most negative code beyond 2 bits.
        """
        channels = len(rows)

        def lanes(values: Sequence[float]) -> np.ndarray:
            return np.repeat(np.array(values, dtype=np.float32), channels)[:, None]

        codes = [each.codes.reshape(rows.shape)[:, metric.order] for each in nearest]
        unit = [each.step * each.scale.reshape(channels, -1) for each in nearest]
        return cls(
            metric=metric,
            weight=np.tile(rows[:, metric.order], (len(nearest), 1)),
            codes=np.concatenate(codes).astype(np.float32),
            unit=np.concatenate(unit).astype(np.float32),
            groups=metric.order // nearest[0].codes.shape[1],
            zero=lanes([each.offset / each.step for each in nearest]),
            lowest=lanes([narrow and each.bits > 2 for each in nearest]),
            highest=lanes([(1 << each.bits) - 1 for each in nearest]),
        )

    def units(self, features: slice = slice(None)) -> np.ndarray:
        """Distances of the levels of some features; broadcasts against (K, features)."""
        return self.unit if self.unit.shape[1] == 1 else self.unit[:, self.groups[features]]

    def errors(self) -> np.ndarray:
        """Values less weights, shape (K, N)."""
        errors = self.codes - self.zero
        errors *= self.units()
        errors -= self.weight
        return errors


@dataclass(slots=True, kw_only=True, eq=False)
class Slope:
    """Where the output error of lanes goes, kept up to date by whatever changes their codes.

    Attributes:
        values: Half the gradient of the form by the values, errors @ H, float32, shape (K, N).
        energy: The form itself, float64, shape (K,).
    """

    values: np.ndarray
    energy: np.ndarray


def pass_on(lanes: Lanes) -> Slope:
    """Choose codes feature by feature, each making up for the errors of those before it (GPTQ)."""
    factor, unit = lanes.metric.factor, np.ascontiguousarray(lanes.unit.T)
    zero, lowest, highest = lanes.zero[:, 0], lanes.lowest[:, 0], lanes.highest[:, 0]
    # Features along the first axis: the loop goes through them one by one.
    errors = np.empty(lanes.weight.T.shape, dtype=np.float32)
    terms, code, energy = np.empty_like(errors), np.empty_like(zero), np.zeros(len(zero))
    for start in range(0, len(errors), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(errors)))
        near, carried = factor[block, block], terms[block]
        np.matmul(factor[block, :start], errors[:start], out=carried)
        goals = np.ascontiguousarray((lanes.weight[:, block] / lanes.units(block) + lanes.zero).T)
        for k, row in enumerate(range(block.start, block.stop)):
            step, debt, goal, error = unit[lanes.groups[row]], carried[k], goals[k], errors[row]
            debt += near[k, :k] @ errors[start:row]
            np.divide(debt, step, out=code)
            np.subtract(goal, code, out=code)
            _settle(code, lowest, highest)
            np.subtract(code, goal, out=error)
            error *= step
            goal[:] = code
        lanes.codes[:, block] = goals.T
        carried += errors[block]
        pivots = lanes.metric.pivots[block]
        squares = np.square(carried)
        energy += pivots @ squares
        carried *= pivots[:, None]
    return Slope(values=lanes.metric.slope(terms), energy=energy)


def descend(lanes: Lanes, slope: Slope, active: np.ndarray) -> np.ndarray:
    """One sweep of coordinate descent: block after block, codes move while that lowers the error.

    Few codes want to move, 1 % after `pass_on` and less in every sweep, so the lanes that have some in a block are
    looked up first, and a step moves one code of each.

    Args:
        lanes: Whose codes.
        slope: Theirs.
        active: Indices of the lanes to look at, increasing.

    Returns:
        Indices of the lanes that have moved, increasing.
    """
    moment, columns = lanes.metric.moment, lanes.codes.shape[1]
    rows = _all_or_some(active, len(lanes.codes))
    moved = np.zeros(len(lanes.codes), dtype=bool)
    for start in range(0, columns, _BLOCK):
        block = slice(start, min(start + _BLOCK, columns))
        steps = _Steps(
            near=moment[block, block],
            codes=lanes.codes[rows, block],
            slope=slope.values[rows, block],
            unit=lanes.units(block)[rows],
            lowest=lanes.lowest[rows],
            highest=lanes.highest[rows],
        )
        wanted = steps.wanted()
        moving = np.flatnonzero((wanted != steps.codes).any(axis=1))
        if not len(moving):
            continue
        who, steps = active[moving], steps.take(moving)
        before = steps.codes.copy()
        slope.energy[who] += steps.run(wanted[moving])
        moved[who] = True
        lanes.codes[who, block] = steps.codes
        slope.values[who] += ((steps.codes - before) * steps.unit) @ moment[block]
    return np.flatnonzero(moved)


def refit(lanes: Lanes, slope: Slope, pull: np.ndarray, active: np.ndarray) -> None:
    """Give scales their best values for the codes there are; old ones where that is not positive.

    Args:
        lanes: Whose scales.
        slope: Theirs.
        pull: weight @ H, shape (rows, N), for the rows that lanes repeat width after width. Where a row has one scale,
            slope and pull add up to values @ H.
        active: Indices of the lanes to refit.
    """
    rows = _all_or_some(active, len(lanes.codes))
    integers, values = lanes.codes[rows] - lanes.zero[rows], slope.values[rows]
    unit, energy = lanes.unit[rows], slope.energy[rows]
    for group in range(unit.shape[1]):
        if unit.shape[1] == 1:
            own, part = integers, values
            through = pull[active % len(pull)]
            through += values
            through /= unit
            power = np.einsum("kn,kn->k", own, through)
        else:
            members = np.flatnonzero(lanes.groups == group)
            own, part = integers[:, members], values[:, members]
            through = own @ lanes.metric.moment[members]
            power = np.einsum("kn,kn->k", own, through[:, members])
        descent = np.einsum("kn,kn->k", own, part)
        new = unit[:, group] - np.divide(descent, power, out=np.zeros_like(power), where=power > _TINY)
        new = np.where(new > _TINY, new, unit[:, group])
        change = new - unit[:, group]
        energy += change * (2 * descent + change * power)
        through *= change[:, None]
        values += through
        unit[:, group] = new
    lanes.unit[rows], slope.values[rows], slope.energy[rows] = unit, values, energy


@dataclass(slots=True, kw_only=True, eq=False)
class _Steps:
    """Coordinate descent among the features of a block. M lanes, B features.

    Attributes:
        near: H of the block, shape (B, B).
        codes: Shape (M, B).
        slope: errors @ H, shape (M, B).
        unit: Shape (M, B) or (M, 1).
        lowest: Shape (M, 1).
        highest: Shape (M, 1).
    """

    near: np.ndarray
    codes: np.ndarray
    slope: np.ndarray
    unit: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    def take(self, lanes: np.ndarray) -> _Steps:
        """Some lanes: copies."""
        return _Steps(
            near=self.near,
            codes=self.codes[lanes],
            slope=self.slope[lanes],
            unit=self.unit[lanes],
            lowest=self.lowest[lanes],
            highest=self.highest[lanes],
        )

    def wanted(self) -> np.ndarray:
        """The best code of every feature, all others as they are."""
        wanted = self.slope / np.diag(self.near)
        wanted /= self.unit
        np.subtract(self.codes, wanted, out=wanted)
        _settle(wanted, self.lowest, self.highest)
        return wanted

    def run(self, wanted: np.ndarray) -> np.ndarray:
        """Move the code that gains most to where it is `wanted`, again and again, until none is.

        Returns:
            The change of the energy, shape (M,).
        """
        change, left = np.zeros(len(self.codes)), np.arange(len(self.codes))
        power, here = np.diag(self.near), self
        # Every step lowers the error, so this ends; rounding errors could let one lane go back and forth.
        for _ in range(2 * len(power)):
            moves = wanted - here.codes
            moves *= here.unit
            gains = moves * power
            gains += 2 * here.slope
            gains *= moves
            best, lanes = gains.argmin(axis=1), np.arange(len(left))
            gain = gains[lanes, best]
            better = np.flatnonzero(gain < 0)
            if not len(better):
                break
            best, left = best[better], left[better]
            change[left] += gain[better]
            self.codes[left, best] = wanted[better, best]
            step, here = moves[better, best], here.take(better)
            here.codes[np.arange(len(left)), best] = self.codes[left, best]
            here.slope += step[:, None] * self.near[best]
            wanted = here.wanted()
        return change


def _all_or_some(active: np.ndarray, lanes: int) -> np.ndarray | slice:
    """An index for increasing numbers of lanes that makes no copy where they are all."""
    return slice(None) if len(active) == lanes else active


def _settle(goals: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> None:
    """Replace wanted codes by the nearest that there are, in place."""
    np.rint(goals, out=goals)
    np.maximum(goals, lowest, out=goals)
    np.minimum(goals, highest, out=goals)
