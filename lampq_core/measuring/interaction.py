"""The joint damage of a whole plan, predicted from layers quantized one at a time.

If option j of layer i moves the outputs by d_ij, a plan that takes option x_i everywhere moves them by about
s = sum_i d_{i, x_i}. To second order around the outputs c that the differences were measured at,

    D(target, c + s) = D(target, c) + <slope, s> + s^T M s / 2,

averaged over the samples, with D the damage of the outputs' roles and M its metric at c (`core.readouts`; for class
logits diag(q) - q q^T, which makes s^T M s the variance of s under q). That is a quadratic form in the one-hot
choices: a constant, a linear term (zero when the centre is the float model itself), and a positive semi-definite
interaction x^T Q x with Q = A^T A, where the columns of A are the differences, embedded so that their squares are
their damage. All pairs of layers cost no further run of the model.

Second-order KL as a layer score is standard (HAWQ-V2, arXiv:1911.03852); CLADO (arXiv:2307.05657) measures pairs
of layers one by one. Adding the differences up before the quadratic form is what makes the pairs free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.shrinking import shrunk
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.profile import Profile

# The factor of more outputs than this is sketched; half of the rows stay exact.
_ROWS, _FEWEST_ROWS = 1 << 14, 1 << 10
_FACTOR_BYTES = 1 << 28
# What interactions may take in memory while they are worked out and searched.
MOST_BYTES = 2 << 30
# Columns of the factor and rows of the matrix that are multiplied at a time.
_BLOCK, _STRIP = 1 << 9, 1 << 8
# Entries of the matrix that are looked up at a time.
_LOOKED_UP = 1 << 22
MOST_GRAM_BYTES = 1 << 29
"""A profile keeps interactions of no more bytes than this: 8,192 pairs of layer and option."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interaction:
    """Damage of a plan as a quadratic form of its choices, in nats. L layers, J options.

    Attributes:
        gram: Q, float64, shape (L, J, L, J), symmetric positive semi-definite as an (LJ, LJ) matrix.
        linear: Float64, shape (L, J).
        constant: Damage of the centre: the plan that moves no logit.
        measured: Which options have a difference, bool, shape (L, J); the others must not be chosen.
        error: Relative standard error of x^T Q x for any one plan that sketching leaves; 0 where Q is exact.
    """

    gram: np.ndarray
    linear: np.ndarray
    constant: float
    measured: np.ndarray
    error: float = 0.0

    @property
    def matrix(self) -> np.ndarray:
        """Q as a view of shape (LJ, LJ)."""
        columns = self.linear.size
        return self.gram.reshape(columns, columns)

    @property
    def own(self) -> np.ndarray:
        """Second-order damage of each option alone, the diagonal of Q, shape (L, J)."""
        return np.einsum("ijij->ij", self.gram)

    def predict(self, choice: np.ndarray) -> np.ndarray:
        """Damage of plans in nats.

        Args:
            choice: Option per layer, shape (..., L).

        Returns:
            Float64, shape (...). Around a quantized plan the expansion can dip below zero far from its centre.
        """
        choice = np.asarray(choice)
        layers, options = self.linear.shape
        cell = np.arange(layers) * options + choice
        plans = cell.reshape(-1, layers)
        step = max(1, _LOOKED_UP // layers**2)
        groups = (plans[start : start + step] for start in range(0, max(1, len(plans)), step))
        pairs = [self.matrix[group[:, :, None], group[:, None, :]].sum(axis=(-2, -1)) for group in groups]
        together = np.concatenate(pairs).reshape(cell.shape[:-1])
        return self.constant + self.linear.ravel()[cell].sum(axis=-1) + together

    def grouped(self, groups: np.ndarray) -> Interaction:
        """The same for tied layers: options of a group move the logits by the sum over its layers.

        Args:
            groups: Group of each layer, 0 .. G - 1, shape (L,).
        """
        layers, options = self.linear.shape
        count = int(groups.max()) + 1
        if count == layers and (groups == np.arange(layers)).all():
            return self
        order = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[order], np.arange(count))
        gram = np.zeros((count, options, count, options))
        # A layer at a time: a matrix with only one side grouped would be as large as the whole.
        for layer, group in enumerate(groups.tolist()):
            gram[group] += np.add.reduceat(self.gram[layer][:, order], starts, axis=1)
        measured = np.ones((count, options), dtype=bool)
        np.logical_and.at(measured, groups, self.measured)
        return Interaction(
            gram=gram,
            linear=np.add.reduceat(self.linear[order], starts, axis=0),
            constant=self.constant,
            measured=measured,
            error=self.error,
        )


class InteractionBuilder:
    """Collects differences of outputs one by one and keeps their inner products, not the differences.

    An embedded difference has as many rows as the outputs of all samples have entries. Up to `rows` of them are kept
    as they are. Beyond that the rows of most importance stay exact and the others are folded into `rows` / 2 buckets
    with random signs (a count sketch with buckets of equal size), which keeps every inner product and every x^T Q x
    unbiased, at a relative standard error of at most sqrt(2 / buckets) for any one plan.

    Args:
        readout: What the outputs mean.
        target: Outputs of the float model (`Readout.reference`).
        layers: Number of layers L.
        options: Number of options J.
        centre: Outputs that the differences are measured from; None for `target` itself.
        rows: Entries kept per difference; memory is 4 * rows * L * J bytes. None keeps 2^14, or as many as take
            256 MiB (see `peak_bytes`).
        seed: Of the buckets and signs.

    Raises:
        RecordError: The outputs do not fit each other or are not finite, or the matrix would be too large.
    """

    def __init__(
        self,
        readout: Readout,
        target: Batch,
        *,
        layers: int,
        options: int,
        centre: Batch | None = None,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        if rows is None:
            rows = usual_rows(layers * options)
        size = sum(group[head.name].size for group in target.groups for head in readout.heads)
        needed = peak_bytes(layers * options, min(size, rows))
        if needed > MOST_BYTES:
            raise RecordError(
                f"interactions of {layers} layers x {options} options need {needed / 2**30:.1f} GiB of memory, and at "
                f"most {MOST_BYTES / 2**30:.0f} GiB are taken; choose mode kl, or profile fewer widths"
            )
        self._readout = readout
        at = target if centre is None else centre
        self._embedding = readout.embedding(at)
        self._slope = None if centre is None else readout.linear(target, centre)
        self._constant = 0.0 if centre is None else float(readout.damage(target, centre).mean())
        self._fold = _Fold(self._embedding.importance, rows, seed) if size > rows else None
        self._factor = np.zeros((layers, options, min(size, rows)), dtype=np.float32)
        self._linear = np.zeros((layers, options))
        self._measured = np.zeros((layers, options), dtype=bool)

    def add(self, layer: int, option: int, difference: Batch) -> None:
        """Take in how option `option` of layer `layer` moves the outputs.

        Raises:
            RecordError: It has another shape or is not finite.
        """
        self._readout.check(difference, f"the difference of layer {layer}, option {option},")
        column = self._embedding(difference)
        self._factor[layer, option] = column if self._fold is None else self._fold(column)
        if self._slope is not None:
            self._linear[layer, option] = self._slope(difference)
        self._measured[layer, option] = True

    def keep(self, layer: int, option: int) -> None:
        """Option `option` of layer `layer` is that of the centre: it moves nothing."""
        self._measured[layer, option] = True

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """All that is filled in option by option, the first axes those of layers and options."""
        return {"factor": self._factor, "linear": self._linear, "measured": self._measured}

    def build(self) -> Interaction:
        """The interaction of everything added so far."""
        layers, options, rows = self._factor.shape
        factor = self._factor.reshape(layers * options, rows)
        gram = np.zeros((layers * options, layers * options))
        for start in range(0, rows, _BLOCK):
            # In double precision, or the smallest eigenvalues would be noise and some of them negative.
            block = factor[:, start : start + _BLOCK].astype(np.float64)
            for top in range(0, len(gram), _STRIP):
                gram[top : top + _STRIP] += block[top : top + _STRIP] @ block.T
        return Interaction(
            gram=gram.reshape(layers, options, layers, options),
            linear=self._linear.copy(),
            constant=self._constant,
            measured=self._measured.copy(),
            error=self._fold.error if self._fold else 0.0,
        )


def usual_rows(columns: int) -> int:
    """Entries kept per difference unless told otherwise, for so many pairs of layer and option."""
    return max(min(_ROWS, _FACTOR_BYTES // (4 * columns)), _FEWEST_ROWS)


def peak_bytes(columns: int, rows: int) -> int:
    """Most memory that building an interaction takes: the matrix, the factor and a block of it in double precision.

    Allocating needs the matrix and a few percent of it; ties a second one, of their groups, which is smaller; and the
    lower bound is left out where its matrices would not fit in `MOST_BYTES` beside it.

    Args:
        columns: Layers times options.
        rows: Entries kept per difference.

    >>> peak_bytes(14_000, 640) / 2**30 < 1.6
    True
    """
    return 8 * columns**2 + columns * (4 * rows + 8 * min(rows, _BLOCK) + 8 * _STRIP)


class _Fold:
    """A linear map to fewer rows: heavy entries as they are, the rest summed with random signs."""

    def __init__(self, importance: np.ndarray, rows: int, seed: int) -> None:
        buckets = rows // 2
        exact = rows - buckets
        order = np.argpartition(-importance, exact)
        self._heavy = order[:exact]
        tail = order[exact:]
        rng = np.random.default_rng(seed)
        depth = math.ceil(tail.size / buckets)
        # Buckets are filled up with a copy of some entry at sign zero.
        self._tail = np.zeros((depth, buckets), dtype=np.int64)
        self._sign = np.zeros((depth, buckets), dtype=np.float32)
        self._tail.ravel()[: tail.size] = rng.permutation(tail)
        self._sign.ravel()[: tail.size] = rng.choice(np.array([-1, 1], dtype=np.float32), tail.size)
        self.error = math.sqrt(2 / buckets)

    def __call__(self, column: np.ndarray) -> np.ndarray:
        return np.concatenate((column[self._heavy], (column[self._tail] * self._sign).sum(axis=0)))


def interaction_of(gram: np.ndarray) -> Interaction:
    """The interaction around the float model of a gram matrix that a profile holds, shape (L, J, L, J)."""
    layers, options = gram.shape[:2]
    return Interaction(
        gram=gram,
        linear=np.zeros((layers, options)),
        constant=0.0,
        measured=np.ones((layers, options), dtype=bool),
    )


def mean_interaction(parts: Sequence[tuple[float, Interaction]]) -> Interaction:
    """The interaction on all samples, from that on parts of them, each with its share."""
    if len(parts) == 1:
        return parts[0][1]
    return Interaction(
        gram=np.sum([share * part.gram for share, part in parts], axis=0),
        linear=np.sum([share * part.linear for share, part in parts], axis=0),
        constant=sum(share * part.constant for share, part in parts),
        measured=np.logical_and.reduce([part.measured for _, part in parts]),
        error=max(part.error for _, part in parts),
    )


def build_interaction(readout: Readout, target: Batch, differences: Sequence[Sequence[Batch]]) -> Interaction:
    """The interaction of differences that are all in memory.

    Args:
        readout: What the outputs mean.
        target: Outputs of the float model.
        differences: Of layer i at option j.

    Raises:
        RecordError: Shapes clash, or a value is not finite.
    """
    builder = InteractionBuilder(readout, target, layers=len(differences), options=len(differences[0]))
    for layer, row in enumerate(differences):
        for option, difference in enumerate(row):
            builder.add(layer, option, difference)
    return builder.build()


def profile_interaction(profile: Profile) -> Interaction:
    """The interaction that a profile holds, or, of version 1, that its logit differences make.

    Where the profile knows how its interactions scatter over samples, they are lessened by as much as they are chance.

    Raises:
        RecordError: It holds neither.
    """
    gram = profile.array("gram")
    square = profile.array("gram_square")
    if gram is not None:
        return interaction_of(gram if square is None else shrunk(gram, square, profile.samples))
    logits, delta = profile.array("logits"), profile.array("logit_delta")
    if logits is None or delta is None:
        raise RecordError(
            "mode superposition needs interactions; profile the model with --data, keeping them"
        )
    target = Batch.of(logits, name="logits")
    readout = Readout.fit((Head(name="logits", role=CLASSES),), target, None)
    return build_interaction(
        readout, target, [[Batch.of(one, name="logits") for one in layer] for layer in delta]
    )
