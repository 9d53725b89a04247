"""Identity of a weight whatever its name, layout or storage type.

A fingerprint holds sums over all entries, so it does not see their order: a transposed or re-laid-out weight
has the same one. The sums add up, so three separate q, k, v weights match their fused form.

How far may two fingerprints of one weight differ? Storage in bfloat16 changes an entry w by w * d with a random d
of standard deviation `_SPREAD`, which moves the sum of w^p by p * _SPREAD * sqrt(sum of w^2p) at random. The first
three sums have that scale among the others, and may move by six of these deviations. The scale of the last two
is unknown (a single outlier may dominate it), so they may move as far as rounding can ever move them.
`benchmarks/matching.py` measures both rounding and false matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError

_VERSION = "s1"
_BLOCK = 1 << 16
# Largest relative error of rounding to bfloat16, which has 8 significant bits.
_UNIT = 2.0**-8
# Its standard deviation: uniform within half a unit in the last place, for mantissas spread as 1/m on [1, 2).
_SPREAD = _UNIT * np.sqrt(3 / (8 * np.log(2)) / 3)
_SIGMAS = 6.0
# Rounding is not quite unbiased where the density of the weights bends: 5e-6 measured, of order _UNIT**2.
_BIAS = 1e-5
# Two equal weights of one file differ by the rounding of the sums and of their text alone.
_EQUAL = 1e-8
# What rounding can change the sum of fourth powers by, and what comparing two such limits may be off by.
_FOURTH, _ROUNDING = 4 * _UNIT, 1e-12
# Pairs that are compared at a time.
_PAIRS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Order-free sums of a weight's entries.

    Attributes:
        count: Number of entries.
        total: Sum of w.
        absolute: Sum of |w|.
        square: Sum of w^2.
        cube: Sum of w^3.
        fourth: Sum of w^4.
    """

    count: int
    total: float
    absolute: float
    square: float
    cube: float
    fourth: float

    @classmethod
    def from_array(cls, weight: np.ndarray) -> Fingerprint:
        """Fingerprint of an array of any shape and float type."""
        sums = np.zeros(5)
        flat = np.asarray(weight).reshape(-1) if weight.flags.c_contiguous else np.ravel(weight, order="K")
        # Blocks keep the temporaries in cache and the peak memory flat. Plain loops, not BLAS: its threads
        # cost more than they bring on vectors this short, and hundredfold on a busy machine.
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            square = block * block
            sums += (
                block.sum(),
                np.abs(block).sum(),
                square.sum(),
                np.einsum("i,i->", square, block),
                np.einsum("i,i->", square, square),
            )
        return cls(
            count=int(flat.size),
            total=float(sums[0]),
            absolute=float(sums[1]),
            square=float(sums[2]),
            cube=float(sums[3]),
            fourth=float(sums[4]),
        )

    def __add__(self, other: Fingerprint) -> Fingerprint:
        """The fingerprint of both weights fused into one tensor."""
        return Fingerprint(
            count=self.count + other.count,
            total=self.total + other.total,
            absolute=self.absolute + other.absolute,
            square=self.square + other.square,
            cube=self.cube + other.cube,
            fourth=self.fourth + other.fourth,
        )

    def distance(self, other: Fingerprint) -> float:
        """How far apart two weights are, as a fraction of what storing one in bfloat16 explains.

        Returns:
            0 for equal sums, at most 1 where both can be of the same weight, infinite for different counts.
        """
        return float(distances(to_table([self]), to_table([other]))[0, 0])

    def matches(self, other: Fingerprint) -> bool:
        """Whether both can be of the same weight, one of them perhaps stored in float16 or bfloat16."""
        return self.distance(other) <= 1

    def equals(self, other: Fingerprint) -> bool:
        """Whether both are of exactly the same values, up to the digits that a file keeps."""
        return bool(equal(to_table([self]), to_table([other]))[0, 0])

    def to_text(self) -> str:
        """One line for a JSON file."""
        values = (self.total, self.absolute, self.square, self.cube, self.fourth)
        return ":".join([_VERSION, str(self.count), *(f"{v:.9e}" for v in values)])

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """The inverse of `to_text`, to ten digits.

        Raises:
            RecordError: The text is no fingerprint of this version.
        """
        parts = text.split(":")
        if len(parts) != 7 or parts[0] != _VERSION:
            raise RecordError(f"{text!r} is no fingerprint of version {_VERSION}")
        try:
            total, absolute, square, cube, fourth = (float(p) for p in parts[2:])
            count = int(parts[1])
        except ValueError as err:
            raise RecordError(f"malformed fingerprint {text!r}") from err
        if not np.isfinite((total, absolute, square, cube, fourth)).all():
            raise RecordError(f"fingerprint {text!r} is not finite")
        return cls(count=count, total=total, absolute=absolute, square=square, cube=cube, fourth=fourth)


def to_table(marks: Sequence[Fingerprint]) -> np.ndarray:
    """Fingerprints as rows: count, total, absolute, square, cube, fourth; float64, shape (N, 6)."""
    rows = [(m.count, m.total, m.absolute, m.square, m.cube, m.fourth) for m in marks]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 6)


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`Fingerprint.distance` of every row of one table to every row of another.

    Args:
        left: Table of N rows; see `to_table`.
        right: Table of M rows.

    Returns:
        Float64, shape (N, M).
    """
    return _apart(left[:, None, :], right[None, :, :])


def close_pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of rows that match, without a table of all pairs: a model may have tens of thousands of layers.

    Returns:
        Rows of `left`, rows of `right` and their distances, at most 1; by row of `left`, then of `right`.
    """
    chunks = []
    for rows, columns in _candidates(left, right, _FOURTH):
        apart = _apart(left[rows], right[columns])
        chosen = apart <= 1
        chunks.append((rows[chosen], columns[chosen], apart[chosen]))
    rows, columns, apart = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], apart[order]


def first_equals(table: np.ndarray) -> np.ndarray:
    """For each row the first that `Fingerprint.equals` it, itself at the latest; int64, shape (N,)."""
    first = np.arange(len(table))
    for rows, columns in _candidates(table, table, _EQUAL):
        same = _same(table[rows], table[columns])
        np.minimum.at(first, rows[same], columns[same])
    return first


def equal(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`Fingerprint.equals` of every row of one table to every row of another; bool, shape (N, M)."""
    return _same(left[:, None, :], right[None, :, :])


def _candidates(
    left: np.ndarray, right: np.ndarray, tolerance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows whose fourth powers agree to a relative tolerance, some at a time; none is left out."""
    order = np.argsort(right[:, 5], kind="stable")
    fourth, slack = right[order, 5], 1 - tolerance - _ROUNDING
    low = np.searchsorted(fourth, left[:, 5] * slack, side="left")
    high = np.searchsorted(fourth, left[:, 5] / slack, side="right")
    ends = np.cumsum(high - low)
    start = 0
    while start < len(left):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        rows = np.repeat(np.arange(start, stop), (high - low)[start:stop])
        places = np.arange(len(rows)) - (ends - (high - low))[rows] + before + low[rows]
        yield rows, order[places]
        start = stop


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`Fingerprint.distance` of rows to rows, broadcast."""
    apart = np.abs(a[..., 1:] - b[..., 1:])
    _, _, absolute, square, _, fourth = np.moveaxis(np.maximum(a, b), -1, 0)
    random = _SIGMAS * _SPREAD
    allowed = np.stack(
        [
            random * np.sqrt(square) + _BIAS * absolute,
            random * np.sqrt(square) + _BIAS * absolute,
            2 * random * np.sqrt(fourth) + _BIAS * square,
            3 * _UNIT * np.sqrt(square * fourth),
            _FOURTH * fourth,
        ],
        axis=-1,
    )
    # Weights of zeros alone allow nothing, and differ by nothing from one another.
    ratio = np.divide(apart, allowed, out=np.where(apart > 0, np.inf, 0.0), where=allowed > 0)
    return np.where(a[..., 0] == b[..., 0], ratio.max(axis=-1), np.inf)


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`Fingerprint.equals` of rows to rows, broadcast."""
    _, _, absolute, square, _, fourth = np.moveaxis(np.maximum(a, b), -1, 0)
    scale = np.stack([absolute, absolute, square, np.sqrt(square * fourth), fourth], axis=-1)
    close = np.abs(a[..., 1:] - b[..., 1:]) <= _EQUAL * scale
    return (a[..., 0] == b[..., 0]) & close.all(axis=-1)
