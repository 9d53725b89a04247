"""The semidefinite relaxation of choosing one option per layer at a quadratic cost, by a primal-dual interior point.

With one-hot choices d_i of layer i, or none, d_i d_i^T = diag(d_i). So for any symmetric S_i the cost is also

    c.d + d^T H d = sum_i (c_i + diag(S_i)).d_i + d^T R d,    R = H - blockdiag(S_1 .. S_G).

As long as R is positive semi-definite the right side is convex, lies above its tangent at any point, and the tangent
is minimised in closed form at any prices of the resources: every iterate gives a valid lower bound. The best S is a
semidefinite programme, whose dual variable X has the blocks diag(d_i) - d_i d_i^T: the covariance of drawing an
option with probabilities d_i.

Sources: Billionnet, Elloumi and Plateau (2009), Improving the performance of standard solvers for quadratic 0-1
programs by a tight convex reformulation: the QCR method; Helmberg, Rendl, Vanderbei and Wolkowicz (1996), An
interior-point method for semidefinite programming, for the search direction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# How far complementarity falls per iteration when full steps are possible.
_CENTERING = 0.3
_MOST_ITERATIONS = 60
_MOST_CONJUGATE_GRADIENTS = 40
_CONJUGATE_GRADIENT_TOLERANCE = 1e-3
# The iteration ends when the bound can rise by no more than this fraction of the distance to the known choice.
_FINISHED = 0.01
_STEP_BACK = 0.95
_STRIP = 256
# Matrices of the size of H that an iteration holds, H itself and the workspace of LAPACK included (8.3 measured).
_MATRICES = 9

_Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """Quadratic cost of moves away from a known choice. G layers, K slots of moves each, R resources.

    Attributes:
        hessian: H, float64, shape (GK, GK), symmetric.
        slope: c, shape (G, K).
        use: What each move uses more, shape (R, G, K).
        room: What all moves together may use more, >= 0, shape (R,).
    """

    hessian: np.ndarray
    slope: np.ndarray
    use: np.ndarray
    room: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MovesBound:
    """What the relaxation proves.

    Attributes:
        value: No set of moves costs less; <= 0, as no move costs 0.
        reduced: A set with this move costs at least `value` + this, shape (G, K), >= 0.
        staying: A set without a move of this layer costs at least `value` + this, shape (G,), >= 0.
        iterations: Iterations taken.
    """

    value: float
    reduced: np.ndarray
    staying: np.ndarray
    iterations: int


def bound_moves(moves: Moves, *, enough: float = 0.0, deadline: float = np.inf) -> MovesBound:
    """A lower bound of c.d + d^T H d over at most one move per layer within the resources.

    Args:
        moves: The problem.
        enough: Stop when the bound exceeds minus this.
        deadline: `time.perf_counter()` at which to stop with what there is.
    """
    point = _Point(moves)
    best = point.bound(0)
    for iteration in range(1, _MOST_ITERATIONS + 1):
        if time.perf_counter() > deadline or not point.advance():
            break
        bound = point.bound(iteration)
        if bound.value > best.value:
            best = bound
        if -best.value <= enough or point.complementarity() < _FINISHED * -best.value:
            break
    return best


def peak_bytes(columns: int) -> int:
    """Most memory that `bound_moves` takes for this many moves, the Hessian included."""
    return 8 * _MATRICES * columns**2


class _Point:
    """A primal point (moves, rest, slack, cover) and a dual one (shift, prices, and what they leave), all positive."""

    def __init__(self, moves: Moves) -> None:
        layers, slots = moves.slope.shape
        self._scale = max(
            float(np.abs(np.diag(moves.hessian)).max()), float(np.abs(moves.slope).max()), 1e-300
        )
        self._unit = np.maximum(np.abs(moves.use).max(axis=(1, 2), initial=0.0), 1e-300)
        self._hessian = moves.hessian
        self._slope = moves.slope / self._scale
        self._use = (moves.use / self._unit[:, None, None]).reshape(len(moves.room), layers * slots)
        self._room = moves.room / self._unit
        self._index = np.arange(layers)
        self._eye = np.eye(slots)
        typical = max(float(np.abs(np.diag(moves.hessian)).mean()) / self._scale, 1e-9)
        self._shift = np.tile(-0.5 * typical * self._eye, (layers, 1, 1))
        # A little of every move, mostly none.
        self._move = np.full((layers, slots), 0.3 / (slots + 1))
        self._rest = 1 - self._move.sum(axis=1)
        self._slack = np.maximum(self._room - self._use @ self._move.ravel(), 0.1)
        self._cover = np.eye(layers * slots) * 0.3 / (slots + 1)
        centre = 0.3 * typical / (slots + 1)
        self._move_price = centre / self._move
        self._rest_price = centre / self._rest
        self._price = centre / self._slack

    def complementarity(self) -> float:
        """Sum of all products of a primal variable and its dual: what the bound can still rise, unless infeasible."""
        return self._scale * self._products()

    def bound(self, iteration: int) -> MovesBound:
        """The bound that the tangent at the current point gives."""
        convex = self._convex()
        step = convex @ self._move.ravel()
        tangent = self._gradient(step) + (self._price @ self._use).reshape(self._move.shape)
        least = np.minimum(tangent.min(axis=1), 0.0)
        value = -self._move.ravel() @ step + least.sum() - self._price @ self._room
        # Rounding in the check that R is positive semi-definite and in the sums.
        value -= 1e-14 * len(step) * (1 + np.abs(tangent).max())
        return MovesBound(
            value=min(self._scale * float(value), 0.0),
            reduced=self._scale * (tangent - least[:, None]),
            staying=self._scale * -least,
            iterations=iteration,
        )

    def advance(self) -> bool:
        """One step towards the optimum; False where rounding permits none."""
        try:
            direction = self._direction(_CENTERING * self._products() / self._count())
            step = self._longest(direction)
        except np.linalg.LinAlgError:
            return False
        if not step > 1e-4:
            return False
        for name, change in direction.items():
            setattr(self, name, getattr(self, name) + step * change)
        return True

    def _products(self) -> float:
        return float(
            np.einsum("ij,ij->", self._cover, self._convex())
            + (self._move * self._move_price).sum()
            + self._rest @ self._rest_price
            + self._slack @ self._price
        )

    def _count(self) -> int:
        return 2 * self._move.size + len(self._rest) + len(self._slack)

    def _convex(self, change: np.ndarray | float = 0.0) -> np.ndarray:
        """R = H - blockdiag(S), with S changed by `change`."""
        convex = self._hessian / self._scale
        self._add_blocks(convex, -(self._shift + change))
        return convex

    def _gradient(self, step: np.ndarray) -> np.ndarray:
        return self._slope + np.diagonal(self._shift, axis1=1, axis2=2) + 2 * step.reshape(self._move.shape)

    def _add_blocks(self, full: np.ndarray, blocks: np.ndarray) -> None:
        """Add to the blocks on the diagonal, in place: there are few, and as a matrix they would be a large one."""
        layers, slots = self._move.shape
        full.reshape(layers, slots, layers, slots)[self._index, :, self._index, :] += blocks

    def _blocks(self, full: np.ndarray) -> np.ndarray:
        layers, slots = self._move.shape
        return full.reshape(layers, slots, layers, slots)[self._index, :, self._index, :]

    def _covariance(self, change: np.ndarray) -> np.ndarray:
        """Change of diag(d_i) - d_i d_i^T with d, shape (G, K, K)."""
        product = change[:, :, None] * self._move[:, None, :]
        return change[:, :, None] * self._eye - product - product.swapaxes(1, 2)

    def _pull(self, blocks: np.ndarray) -> np.ndarray:
        """Change of the gradient with S: the adjoint of `_covariance`, shape (G, K)."""
        return np.diagonal(blocks, axis1=1, axis2=2) - 2 * (blocks @ self._move[:, :, None])[:, :, 0]

    def _direction(self, centre: float) -> dict[str, np.ndarray]:
        """Newton's direction to complementarity `centre`, with all that depends on S eliminated last."""
        layers, slots = self._move.shape
        convex = self._convex()
        inverse = np.linalg.inv(convex)
        _symmetrize(inverse)
        slack_error = self._room - self._slack - self._use @ self._move.ravel()
        rest_error = 1 - self._rest - self._move.sum(axis=1)
        rest_rate, slack_rate = self._rest_price / self._rest, self._price / self._slack
        # What remains for the moves once rest, slack and all prices are eliminated.
        gradient = self._gradient(convex @ self._move.ravel()) - centre / self._move
        gradient += (centre / self._rest - rest_rate * rest_error)[:, None]
        gradient += ((centre / self._slack - slack_rate * slack_error) @ self._use).reshape(gradient.shape)
        # The matrix itself becomes the curvature: it is large, and not needed again.
        convex *= 2
        convex.ravel()[:: len(convex) + 1] += (self._move_price / self._move).ravel()
        for rows in _strips(len(convex)):
            convex[rows] += self._use.T[rows] @ (slack_rate[:, None] * self._use)
        self._add_blocks(convex, np.broadcast_to(rest_rate[:, None, None], (layers, slots, slots)))
        curvature = np.linalg.inv(convex)
        del convex
        shift, move, cover = self._settled(inverse, curvature, gradient, centre)
        del curvature
        inverse *= centre
        cover += inverse
        cover -= self._cover
        rest = rest_error - move.sum(axis=1)
        slack = slack_error - self._use @ move.ravel()
        return {
            "_shift": shift,
            "_cover": cover,
            "_move": move,
            "_rest": rest,
            "_slack": slack,
            "_move_price": (centre - self._move_price * move) / self._move - self._move_price,
            "_rest_price": (centre - self._rest_price * rest) / self._rest - self._rest_price,
            "_price": (centre - self._price * slack) / self._slack - self._price,
        }

    def _settled(
        self, inverse: np.ndarray, curvature: np.ndarray, gradient: np.ndarray, centre: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions of S and of the moves, and what the former adds to that of the cover, symmetric.

        Args:
            inverse: R^-1.
            curvature: The inverse curvature of the moves.
            gradient: Their gradient, shape (G, K).
            centre: Complementarity to go to.
        """
        layers, slots = self._move.shape
        size = layers * slots
        left = np.ascontiguousarray(inverse.reshape(size, layers, slots).swapaxes(0, 1))
        right = np.ascontiguousarray(self._cover.reshape(size, layers, slots).swapaxes(0, 1))

        def through(blocks: np.ndarray) -> np.ndarray:
            """R^-1 blockdiag X, by rows of layers, shape (G, K, GK)."""
            return (left @ blocks).swapaxes(0, 1).reshape(layers, slots, size)

        def settle(slope: np.ndarray) -> np.ndarray:
            return (curvature @ slope.ravel()).reshape(slope.shape)

        def schur(blocks: np.ndarray) -> np.ndarray:
            return _symmetric(through(blocks) @ right) + self._covariance(settle(self._pull(blocks)))

        outer, inner = np.linalg.inv(self._blocks(inverse)), np.linalg.inv(self._blocks(self._cover))
        target = self._move[:, :, None] * (self._eye - self._move[:, None, :]) - centre * self._blocks(
            inverse
        )
        shift = _conjugate_gradients(
            schur,
            target - self._covariance(settle(gradient)),
            lambda blocks: _symmetric(outer @ blocks @ inner),
        )
        move = -settle(gradient + self._pull(shift))
        cover = through(shift).reshape(size, size) @ self._cover
        _symmetrize(cover)
        return shift, move, cover

    def _longest(self, direction: dict[str, np.ndarray]) -> float:
        """The longest step, at most 1, that keeps everything positive."""
        step = 1.0
        for name in ("_move", "_rest", "_slack", "_move_price", "_rest_price", "_price"):
            value, change = getattr(self, name), direction[name]
            falls = change < 0
            if falls.any():
                step = min(step, _STEP_BACK * float((value[falls] / -change[falls]).min()))
        step = _positive_step(lambda length: self._convex(length * direction["_shift"]), step)
        return _positive_step(lambda length: self._covered(length * direction["_cover"]), step)

    def _covered(self, change: np.ndarray) -> np.ndarray:
        change += self._cover
        return change


def _positive_step(moved: Callable[[float], np.ndarray], step: float) -> float:
    """The first of `step`, 0.8 `step`, ... at which a matrix stays positive definite with some margin."""
    while step > 1e-4:
        try:
            # The margin: a somewhat longer step would do as well.
            np.linalg.cholesky(moved(step / 0.9))
        except np.linalg.LinAlgError:
            step *= 0.8
        else:
            return step
    return 0.0


def _conjugate_gradients(operator: _Map, target: np.ndarray, precondition: _Map) -> np.ndarray:
    """A symmetric block matrix that a positive definite operator takes about to `target`."""
    solution, residual = np.zeros_like(target), target.copy()
    direction = precondition(residual)
    size = first = float((residual * direction).sum())
    for _ in range(_MOST_CONJUGATE_GRADIENTS):
        if not size > first * _CONJUGATE_GRADIENT_TOLERANCE**2:
            break
        image = operator(direction)
        length = size / float((direction * image).sum())
        solution += length * direction
        residual -= length * image
        next_direction = precondition(residual)
        next_size = float((residual * next_direction).sum())
        direction = next_direction + next_size / size * direction
        size = next_size
    return _symmetric(solution)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.swapaxes(-1, -2)) / 2


def _symmetrize(matrix: np.ndarray) -> None:
    """`_symmetric` in place, for one large matrix."""
    for rows in _strips(len(matrix)):
        below = slice(rows.start, None)
        mean = (matrix[rows, below] + matrix[below, rows].T) / 2
        matrix[rows, below] = mean
        matrix[below, rows] = mean.T


def _strips(size: int) -> Iterator[slice]:
    """Some rows of a large matrix at a time, so that what is computed of them stays small."""
    return (slice(start, min(start + _STRIP, size)) for start in range(0, size, _STRIP))
