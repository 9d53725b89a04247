"""The joint damage of a whole plan, predicted from layers quantized one at a time.

If option j of layer i moves the logits by d_ij, a plan that takes option x_i everywhere moves them by about
s = sum_i d_{i, x_i}. To second order around the logits c that the differences were measured at,

    KL(p || softmax(c + s)) = KL(p || q) + <q - p, s> + Var_q(s) / 2,   p = softmax(target), q = softmax(c),

averaged over the samples. That is a quadratic form in the one-hot choices: a constant, a linear term (zero when
the centre is the float model itself), and a positive semi-definite interaction x^T Q x with Q = A^T A, where the
columns of A are the differences, centred under q and weighted with sqrt(q / 2S). All pairs of layers cost no
further run of the model.

Second-order KL as a layer score is standard (HAWQ-V2, arXiv:1911.03852); CLADO (arXiv:2307.05657) measures pairs
of layers one by one. Adding the logit differences up before the quadratic form is what makes the pairs free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lampq.core.divergence import kl_divergence, log_softmax
from lampq.core.errors import RecordError
from lampq.core.profile import Profile

# The factor of more (sample, class) pairs than this is sketched; half of the rows stay exact.
_ROWS = 1 << 14
# What the interactions of a profile may take in memory while they are worked out and searched.
MOST_BYTES = 2 << 30
# Columns of the factor and rows of the matrix that are multiplied at a time.
_BLOCK, _STRIP = 1 << 9, 1 << 8
# Entries of the matrix that are looked up at a time.
_LOOKED_UP = 1 << 22


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
    """Collects logit differences one by one and keeps their inner products, not the differences.

    With S samples and C classes a difference has S * C entries. Up to `rows` of them are kept as they are.
    Beyond that the rows with the largest probabilities stay exact and the others are folded into `rows` / 2
    buckets with random signs (a count sketch with buckets of equal size), which keeps every inner product and
    every x^T Q x unbiased, at a relative standard error of at most sqrt(2 / buckets) for any one plan.

    Args:
        target: Logits of the float model, shape (S, C).
        layers: Number of layers L.
        options: Number of options J.
        centre: Logits that the differences are measured from, shape (S, C); None for `target` itself.
        rows: Entries kept per difference; memory is 4 * rows * L * J bytes (see `peak_bytes`).
        seed: Of the buckets and signs.

    Raises:
        RecordError: The logits do not fit each other or are not finite, or the matrix would be too large.
    """

    def __init__(
        self,
        target: np.ndarray,
        *,
        layers: int,
        options: int,
        centre: np.ndarray | None = None,
        rows: int = _ROWS,
        seed: int = 0,
    ) -> None:
        needed = peak_bytes(layers * options, min(target.size, rows))
        if needed > MOST_BYTES:
            raise RecordError(
                f"interactions of {layers} layers x {options} options need {needed / 2**30:.1f} GiB of memory, and at "
                f"most {MOST_BYTES / 2**30:.0f} GiB are taken; choose mode kl, or profile fewer widths"
            )
        self._shape = target.shape
        p = np.exp(log_softmax(_checked(target, "target logits", self._shape)))
        if centre is None:
            q, self._slope, self._constant = p, None, 0.0
        else:
            q = np.exp(log_softmax(_checked(centre, "centre logits", self._shape)))
            self._slope = (q - p) / len(p)
            self._constant = float(kl_divergence(target, centre).mean())
        self._probability = q.astype(np.float32)
        self._weight = np.sqrt(q / (2 * len(q))).astype(np.float32)
        self._fold = _Fold(q.ravel(), rows, seed) if q.size > rows else None
        self._factor = np.zeros((layers, options, min(q.size, rows)), dtype=np.float32)
        self._linear = np.zeros((layers, options))
        self._measured = np.zeros((layers, options), dtype=bool)

    def add(self, layer: int, option: int, difference: np.ndarray) -> None:
        """Take in the logit difference that option `option` of layer `layer` makes, shape (S, C).

        Raises:
            RecordError: It has another shape or is not finite.
        """
        difference = _checked(difference, f"logit difference of layer {layer}, option {option}", self._shape)
        difference = difference.astype(np.float32, copy=False)
        mean = np.einsum("sc,sc->s", self._probability, difference)
        column = ((difference - mean[:, None]) * self._weight).ravel()
        self._factor[layer, option] = column if self._fold is None else self._fold(column)
        if self._slope is not None:
            self._linear[layer, option] = np.einsum("sc,sc->", self._slope, difference)
        self._measured[layer, option] = True

    def keep(self, layer: int, option: int) -> None:
        """Option `option` of layer `layer` is that of the centre: it moves nothing."""
        self._measured[layer, option] = True

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

    def __init__(self, probability: np.ndarray, rows: int, seed: int) -> None:
        buckets = rows // 2
        exact = rows - buckets
        order = np.argpartition(-probability, exact)
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


def build_interaction(
    target: np.ndarray, differences: np.ndarray, *, centre: np.ndarray | None = None
) -> Interaction:
    """The interaction of differences that are all in memory.

    Args:
        target: Float logits, shape (S, C).
        differences: Shape (L, J, S, C).
        centre: Logits that the differences are measured from; None for `target`.

    Raises:
        RecordError: Shapes clash, or a value is not finite.
    """
    if differences.ndim != 4:
        raise RecordError(
            f"logit differences have shape {differences.shape}; expected (layers, options, samples, classes)"
        )
    layers, options = differences.shape[:2]
    builder = InteractionBuilder(target, layers=layers, options=options, centre=centre)
    for layer in range(layers):
        for option in range(options):
            builder.add(layer, option, differences[layer, option])
    return builder.build()


def profile_interaction(profile: Profile) -> Interaction:
    """The interaction of the differences that a profile holds.

    Raises:
        RecordError: It holds none.
    """
    if profile.logits is None or profile.logit_delta is None:
        raise RecordError(
            "mode superposition needs logit differences; profile the model with --data, keeping them"
        )
    return build_interaction(profile.logits, profile.logit_delta)


def _checked(array: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 2 or array.shape != shape or array.size == 0:
        raise RecordError(
            f"{what} have shape {array.shape}; expected (samples, classes){_like(array, shape)}"
        )
    if not np.isfinite(array).all():
        sample = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise RecordError(f"{what} are not finite (first for sample {sample})")
    return array


def _like(array: np.ndarray, shape: tuple[int, ...]) -> str:
    return f" = {shape}" if len(shape) == 2 and array.shape != shape else ""
