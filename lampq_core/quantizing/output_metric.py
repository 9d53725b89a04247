"""What an error of a layer's weights does to its output, in the forms that rounding works with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError

# Added to the diagonal of the moment, as a fraction of its mean: the moment of few samples is not exact.
_DAMPING = 0.01
# Rows of the factor taken at once where its zeros are left out.
_STRIPE = 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputMetric:
    """The form e H e^T, with H the damped second moment of the inputs and e the error of a row of weights.

    Features come in `order`: those that weigh most go first, because they have the most others left to make up for
    them. With H = F^T diag(pivots) F and F unit lower triangular the form is sum_k pivots_k (F e)_k^2, in which entry
    k depends on the features up to k alone. So one Cholesky factor serves all passes, and no inverse of H is needed
    (Chee et al., 2023, QuIP, arXiv:2307.13304, theorem 6: what GPTQ passes on are the entries of this factor).

    Attributes:
        order: Features of a row of weights, most power first, int64, shape (N,).
        moment: H, float32, shape (N, N).
        factor: F, float32, shape (N, N).
        pivots: Float32, shape (N,), > 0.
        damping: What H has on its diagonal beside the moment, > 0.
    """

    order: np.ndarray
    moment: np.ndarray
    factor: np.ndarray
    pivots: np.ndarray
    damping: float

    @classmethod
    def from_moment(cls, moment: np.ndarray) -> OutputMetric | None:
        """The metric of a second moment E[x x^T], shape (N, N); None where the inputs have no power at all.

        Raises:
            RecordError: It is no finite square matrix.
        """
        if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or not np.isfinite(moment).all():
            raise RecordError(f"an input moment of shape {moment.shape} is no finite square matrix")
        damping = _DAMPING * float(np.trace(moment, dtype=np.float64)) / max(1, len(moment))
        if not damping > 0:
            return None
        order = np.argsort(-np.diag(moment), kind="stable")
        damped = moment[np.ix_(order, order)].astype(np.float64)
        damped.flat[:: len(moment) + 1] += damping
        # Cholesky with rows and columns reversed: upper times its transpose, as F^T diag F is.
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        roots = np.diag(upper).copy()
        return cls(
            order=order,
            moment=damped.astype(np.float32),
            factor=np.divide(upper, roots, dtype=np.float64).T.astype(np.float32, order="C"),
            pivots=np.square(roots).astype(np.float32),
            damping=damping,
        )

    def slope(self, terms: np.ndarray) -> np.ndarray:
        """The products e H, shape (K, N), from pivots * F e^T, shape (N, K)."""
        slope = np.empty(terms.T.shape, dtype=np.float32)
        for start in range(0, len(terms), _STRIPE):
            stop = min(start + _STRIPE, len(terms))
            slope[:, start:stop] = terms[start:].T @ self.factor[start:, start:stop]
        return slope

    def own_part(self, energy: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Output errors, shape (K,), from the form of the damped moment: less what the damping has added.

        Args:
            energy: The form, shape (K,).
            errors: Of weights, shape (K, N).
        """
        return energy - self.damping * np.einsum("kn,kn->k", errors, errors)

    def exact(self, errors: np.ndarray) -> np.ndarray:
        """Output errors, shape (K,), of errors of weights (K, N)."""
        return self.own_part(np.einsum("kn,kn->k", errors @ self.moment, errors), errors)

    def may_not_exceed(self, errors: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Indices of those errors of weights (K, N) whose output errors may be no larger than a limit (K,).

        The terms of the form are added up until each has been seen to exceed its limit; few last to the end.
        """
        left = np.arange(len(errors))
        seen = self.own_part(np.zeros(len(errors)), errors)
        for start in range(0, errors.shape[1], _STRIPE):
            stop = min(start + _STRIPE, errors.shape[1])
            terms = errors[:, :stop] @ self.factor[start:stop, :stop].T
            seen += np.einsum("kn,kn,n->k", terms, terms, self.pivots[start:stop])
            open_ = seen <= limit[left]
            left, seen = left[open_], seen[open_]
            if not open_.all():
                errors = errors[open_]
        return left
