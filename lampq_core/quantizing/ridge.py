"""Weights that make up for what their inputs have lost: ridge regression from rounded inputs onto exact outputs.

Source: Zhong et al. (2024), ERQ, arXiv:2407.06794. How far the weights may move is told by samples left out: few
samples would else be fitted to the last bit, and others not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Rows that tell how much a ridge loses, whatever the number of features.
_ROWS = 1000
# Added to the diagonal of the moment, as fractions of its mean: what is tried.
RIDGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """Moments of the inputs of a layer on some samples, x in the float model and x_hat in the quantized one.

    Attributes:
        own: Sum of x_hat x_hat^T, float, shape (N, N).
        lost: Sum of (x - x_hat) x_hat^T, the same.
        count: Rows in the sums, > 0.
    """

    own: np.ndarray
    lost: np.ndarray
    count: int

    @classmethod
    def of(cls, folds: Sequence[Fold]) -> Fold:
        """All samples of some folds."""
        own, lost = sum(fold.own for fold in folds), sum(fold.lost for fold in folds)
        return cls(own=np.asarray(own), lost=np.asarray(lost), count=sum(fold.count for fold in folds))


def corrected(rows: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """Weights W' whose products with rounded inputs come closest to W x, also on samples left out.

    W' = W + W E[(x - x_hat) x_hat^T] (E[x_hat x_hat^T] + ridge)^-1, with the ridge that loses least on the first fold
    with weights chosen on the others, or, where the first tells little (`judges_alone`), on all folds in turn; W itself
    where none does better, or where there is one fold alone.

    Args:
        rows: W, float32, shape (C, N).
        folds: Moments of disjoint samples.

    Returns:
        Float32, shape (C, N).
    """
    if len(folds) < 2:
        return rows
    judges = [0] if judges_alone(folds[0]) else range(len(folds))
    fewer = _fewer(rows)
    trials = [_Trial.of(fewer, folds, left_out) for left_out in judges]
    place, loss = _valley(lambda ridge: sum(trial.loss(ridge) for trial in trials))
    # A loss below that of the weights as they are, which is zero.
    if not loss < 0:
        return rows
    whole = Fold.of(folds)
    return (rows + _change(rows @ whole.lost, whole, RIDGES[place])).astype(np.float32)


def judges_alone(fold: Fold) -> bool:
    """Whether a fold is enough to choose a ridge by: it has as many rows as features, or a thousand.

    On a CIFAR-10 ViT its choice is as good as that of all folds in turn, at a third of the time.
    """
    return fold.count >= min(len(fold.own), _ROWS)


def _fewer(rows: np.ndarray) -> np.ndarray:
    """Rows with the same W^T W, which is all that losses see of them: no more than there are features."""
    return rows if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(rows, mode="r"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """Weights corrected on some folds, judged on one that is left out.

    Attributes:
        fitted: All folds but one.
        judged: That one.
        aim: W times what the inputs of `fitted` have lost, shape (C, N).
        lost: The same of `judged`.
    """

    fitted: Fold
    judged: Fold
    aim: np.ndarray
    lost: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, folds: Sequence[Fold], left_out: int) -> _Trial:
        fitted = Fold.of([fold for number, fold in enumerate(folds) if number != left_out])
        judged = folds[left_out]
        return cls(fitted=fitted, judged=judged, aim=rows @ fitted.lost, lost=rows @ judged.lost)

    def loss(self, ridge: float) -> float:
        """Sum of |W x - W' x_hat|^2 less that of |W x - W x_hat|^2."""
        change = _change(self.aim, self.fitted, ridge)
        return float(((change @ self.judged.own - 2 * self.lost) * change).sum())


def _change(aim: np.ndarray, fold: Fold, ridge: float) -> np.ndarray:
    """W' - W, float64, shape (C, N); zero where the inputs are. `aim` is W times what they have lost."""
    own = fold.own.astype(np.float64) / fold.count
    mean = float(own.trace()) / len(own)
    if not mean > 0:
        return np.zeros(aim.shape)
    own[np.diag_indices_from(own)] += ridge * mean
    # A system for each change costs less than the axes of the moment would, which serve all ridges.
    return np.linalg.solve(own, (aim / fold.count).T).T


def _valley(loss: Callable[[float], float]) -> tuple[int, float]:
    """Place of the ridge that loses least, walked down to from the middle, and what it loses.

    Less of a ridge fits better and more of it carries over better: between lies one valley.
    """
    place = len(RIDGES) // 2
    least = loss(RIDGES[place])
    for step in (-1, 1):
        begun = place
        while 0 <= place + step < len(RIDGES) and (other := loss(RIDGES[place + step])) < least:
            place, least = place + step, other
        if place != begun:
            break
    return place, least
