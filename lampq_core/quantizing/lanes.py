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
    goals = np.ascontiguousarray((lanes.weight / lanes.units() + lanes.zero).T)
    errors, terms, code = np.empty_like(goals), np.empty_like(goals), np.empty_like(zero)
    energy = np.zeros(len(zero))
    for start in range(0, len(goals), _BLOCK):
        stop = min(start + _BLOCK, len(goals))
        near, carried = factor[start:stop, start:stop], terms[start:stop]
        np.matmul(factor[start:stop, :start], errors[:start], out=carried)
        for k in range(stop - start):
            row, step = start + k, unit[lanes.groups[start + k]]
            carried[k] += near[k, :k] @ errors[start:row]
            np.divide(carried[k], step, out=code)
            np.subtract(goals[row], code, out=code)
            _settle(code, lowest, highest)
            np.subtract(code, goals[row], out=errors[row])
            errors[row] *= step
            goals[row] = code
        carried += errors[start:stop]
        pivots = lanes.metric.pivots[start:stop]
        energy += np.einsum("nk,nk,n->k", carried, carried, pivots)
        carried *= pivots[:, None]
    lanes.codes = np.ascontiguousarray(goals.T)
    return Slope(values=np.ascontiguousarray(lanes.metric.slope(terms).T), energy=energy)


def descend(lanes: Lanes, slope: Slope) -> None:
    """One sweep of coordinate descent: block after block, codes move while that lowers the error.

    Few codes want to move, 1 % after `pass_on` and less in every sweep, so the lanes that have some in a block are
    looked up first, and a step moves one code of each.
    """
    moment, columns = lanes.metric.moment, lanes.codes.shape[1]
    for start in range(0, columns, _BLOCK):
        block = slice(start, min(start + _BLOCK, columns))
        step = lanes.units(block)
        wanted = lanes.codes[:, block] - slope.values[:, block] / (step * np.diag(moment)[block])
        _settle(wanted, lanes.lowest, lanes.highest)
        moving = np.flatnonzero((wanted != lanes.codes[:, block]).any(axis=1))
        if not len(moving):
            continue
        codes, change = _moved(lanes, slope, moving, block)
        moves = (codes - lanes.codes[moving, block]) * (step[moving])
        lanes.codes[moving, block] = codes
        slope.values[moving] += moves @ moment[block]
        slope.energy[moving] += change


def _moved(
    lanes: Lanes, slope: Slope, moving: np.ndarray, block: slice
) -> tuple[np.ndarray, np.ndarray]:
    """New codes of a block in some lanes, shape (M, B), and the change of their energy, shape (M,)."""
    near = np.ascontiguousarray(lanes.metric.moment[block, block])
    power = np.diag(near)
    codes, local = lanes.codes[moving, block], slope.values[moving, block]
    unit = np.broadcast_to(lanes.units(block), (len(lanes.codes), len(near)))[moving]
    lowest, highest = lanes.lowest[moving], lanes.highest[moving]
    change, open_ = np.zeros(len(moving)), np.arange(len(moving))
    # Every step lowers the error, so this ends; rounding errors may let one lane go back and forth.
    for _ in range(2 * len(near)):
        here, step = codes[open_], unit[open_]
        wanted = here - local[open_] / (step * power)
        _settle(wanted, lowest[open_], highest[open_])
        moves = (wanted - here) * step
        gains = moves * (2 * local[open_] + moves * power)
        best = gains.argmin(axis=1)
        at = np.arange(len(open_))
        gain = gains[at, best]
        better = gain < 0
        if not better.any():
            break
        at, best, open_ = at[better], best[better], open_[better]
        codes[open_, best] = wanted[at, best]
        local[open_] += moves[at, best][:, None] * near[best]
        change[open_] += gain[better]
    return codes, change


def refit(lanes: Lanes, slope: Slope, pull: np.ndarray) -> None:
    """Give the scales their best values for the codes there are; old ones where that is not positive.

    Args:
        lanes: Whose scales.
        slope: Theirs.
        pull: weight @ H, shape (rows, N), for the rows that lanes repeat width after width. Where a row has one scale,
            slope and pull add up to values @ H.
    """
    if lanes.unit.shape[1] == 1:
        integers = lanes.codes - lanes.zero
        through = slope.values.reshape(-1, *pull.shape) + pull
        through = through.reshape(slope.values.shape)
        through /= lanes.unit
        _refit_group(lanes, slope, 0, slice(None), integers, through)
        return
    for group in range(lanes.unit.shape[1]):
        members = np.flatnonzero(lanes.groups == group)
        integers = lanes.codes[:, members] - lanes.zero
        _refit_group(lanes, slope, group, members, integers, integers @ lanes.metric.moment[members])


def _refit_group(
    lanes: Lanes,
    slope: Slope,
    group: int,
    members: np.ndarray | slice,
    integers: np.ndarray,
    through: np.ndarray,
) -> None:
    """One scale of every lane, all others as they are; `through` is what its features do, integers @ H[members]."""
    power = np.einsum("kn,kn->k", integers, through[:, members])
    descent = np.einsum("kn,kn->k", integers, slope.values[:, members])
    old = lanes.unit[:, group]
    new = old - descent / np.maximum(power, _TINY)
    new = np.where((power > _TINY) & (new > _TINY), new, old)
    change = new - old
    slope.energy += change * (2 * descent + change * power)
    through *= change[:, None]
    slope.values += through
    lanes.unit[:, group] = new


def _settle(goals: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> None:
    """Replace wanted codes by the nearest that there are, in place."""
    np.rint(goals, out=goals)
    np.maximum(goals, lowest, out=goals)
    np.minimum(goals, highest, out=goals)
