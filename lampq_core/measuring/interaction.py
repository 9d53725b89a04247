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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.measuring.shrinking import shrunk
from lampq.core.measuring.sketch import Sketch
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
MOST_SQUARE_BYTES = MOST_GRAM_BYTES >> 3
"""Squares are kept of matrices up to this size: larger ones are of models whose calibration is the smaller worry."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interaction:
    """Damage of a plan as a quadratic form of its choices, in nats. L layers, J options.

    Attributes:
        gram: Q, float64, shape (L, J, L, J), symmetric positive semi-definite as an (LJ, LJ) matrix.
        linear: Float64, shape (L, J).
        constant: Damage of the centre: the plan that moves no logit.
        measured: Which options have a difference, bool, shape (L, J); the others must not be chosen.
        error: Relative standard error of x^T Q x for any one plan that sketching leaves; 0 where Q is exact.
        square: Mean over samples of their squared inner products, from which the sampling error of Q follows, shape
            (L, J, L, J); None where it is not known.
    """

    gram: np.ndarray
    linear: np.ndarray
    constant: float
    measured: np.ndarray
    error: float = 0.0
    square: np.ndarray | None = None

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

    def shrunk(self, samples: int) -> Interaction:
        """The same with interactions lessened by as much as they are chance, where that is known.

        Args:
            samples: Behind it.
        """
        if self.square is None:
            return self
        return replace(self, gram=shrunk(self.gram, self.square, samples), square=None)

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

    An embedded difference has as many rows as the outputs of all samples have entries. Beyond `rows` of them they are
    sketched (`core.measuring.sketch`): every inner product and every x^T Q x stays unbiased, at a relative standard
    error of about 2 / sqrt(rows) for any one plan.

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
        self._sketch = Sketch(self._embedding.importance, self._embedding.sample, rows, seed)
        self._samples = at.samples
        self._factor = np.zeros((layers, options, self._sketch.rows), dtype=np.float32)
        self._linear = np.zeros((layers, options))
        self._measured = np.zeros((layers, options), dtype=bool)

    def add(self, layer: int, option: int, difference: Batch) -> None:
        """Take in how option `option` of layer `layer` moves the outputs.

        Raises:
            RecordError: It has another shape or is not finite.
        """
        self._readout.check(difference, f"the difference of layer {layer}, option {option},")
        self._factor[layer, option] = self._sketch(self._embedding(difference))
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
        layers, options, _ = self._factor.shape
        columns, shape = layers * options, (layers, options, layers, options)
        gram = np.zeros((columns, columns))
        square = np.zeros((columns, columns)) if keeps_squares(columns) else None
        for top in range(0, columns, _STRIP):
            strip = slice(top, min(top + _STRIP, columns))
            self._sum(strip, gram[strip], None if square is None else square[strip])
        return Interaction(
            gram=gram.reshape(shape),
            linear=self._linear.copy(),
            constant=self._constant,
            measured=self._measured.copy(),
            error=self._sketch.error,
            square=None if square is None else square.reshape(shape),
        )

    def _sum(self, strip: slice, gram: np.ndarray, square: np.ndarray | None) -> None:
        """Rows of Q and of the mean of its squares, from the products of every group of samples."""
        sketch, factor = self._sketch, self._factor.reshape(-1, self._sketch.rows)
        starts = [0, sketch.rows] if square is None else sketch.starts.tolist()
        for share, begin, end in zip(sketch.share, starts, starts[1:], strict=False):
            product = np.zeros(gram.shape)
            for start in range(begin, end, _BLOCK):
                # In double precision, or the smallest eigenvalues would be noise and some of them negative.
                block = factor[:, start : min(start + _BLOCK, end)].astype(np.float64)
                product += block[strip] @ block.T
            gram += product
            if square is not None:
                product *= product
                product /= share
                square += product
        if square is not None and len(sketch.share) < self._samples:
            # Groups scatter less than the single samples that they are means of.
            within = gram * gram
            square -= within
            square *= (self._samples - 1) / max(len(sketch.share) - 1, 1)
            square += within


def keeps_squares(columns: int) -> bool:
    """Whether the squares of interactions of so many pairs of layer and option are kept."""
    return 8 * columns**2 <= MOST_SQUARE_BYTES


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
    matrices = 2 if keeps_squares(columns) else 1
    return 8 * matrices * columns**2 + columns * (4 * rows + 8 * min(rows, _BLOCK) + 16 * _STRIP)


def interaction_of(gram: np.ndarray, square: np.ndarray | None = None) -> Interaction:
    """The interaction around the float model of a gram matrix that a profile holds, shape (L, J, L, J)."""
    layers, options = gram.shape[:2]
    return Interaction(
        gram=gram,
        linear=np.zeros((layers, options)),
        constant=0.0,
        measured=np.ones((layers, options), dtype=bool),
        square=square,
    )


def mean_interaction(parts: Sequence[tuple[float, Interaction]]) -> Interaction:
    """The interaction on all samples, from that on parts of them, each with its share."""
    if len(parts) == 1:
        return parts[0][1]
    squares = [share * part.square for share, part in parts if part.square is not None]
    return Interaction(
        gram=np.sum([share * part.gram for share, part in parts], axis=0),
        linear=np.sum([share * part.linear for share, part in parts], axis=0),
        constant=sum(share * part.constant for share, part in parts),
        measured=np.logical_and.reduce([part.measured for _, part in parts]),
        error=max(part.error for _, part in parts),
        square=np.sum(squares, axis=0) if len(squares) == len(parts) else None,
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
    if gram is not None:
        return interaction_of(gram, profile.array("gram_square")).shrunk(profile.samples)
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
