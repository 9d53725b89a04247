"""Directions in logit space whose gradients make up the Fisher information.

For a softmax model F = J^T (diag(p) - p p^T) J, with J the Jacobian of the logits. Every set of vectors v
with E[v v^T] = diag(p) - p p^T gives tr(F) = E ||J^T v||^2, so one backward pass per vector is all it
takes. What differs is how much the estimate scatters:

- `exact`: the classes - 1 columns of a triangular square root; no scatter at all.
- `probe`: that square root times random signs. With two classes it is exact.
- `sampled`: v = e_y - p with y drawn from p, as the definition has it. A sure prediction is nearly always
  drawn and nearly never the one that counts, so a few draws scatter widely.
- `data`: v = e_y - p with y the label of the data: the empirical Fisher information.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lampq.core.values.errors import AdapterError

LABELS = ("auto", "exact", "probe", "sampled", "data")


def directions(
    logits: torch.Tensor,
    *,
    labels: str,
    draws: int,
    seed: int,
    samples: np.ndarray,
    truth: np.ndarray | None = None,
) -> Iterator[torch.Tensor]:
    """Vectors v, float64, shape (S, C), scaled so that the sum of ||J^T v||^2 over them estimates tr(F) per
    sample.

    Args:
        logits: Shape (S, C).
        labels: One of `LABELS`; `auto` is exact where that takes no more passes than `draws`, else probes.
        draws: Random vectors per sample.
        seed: Seeds them.
        samples: Number of each sample in the whole data set, shape (S,): a sample draws the same vectors in
            whatever batch, shard or process it is.
        truth: Labels of the data, shape (S,).

    Raises:
        AdapterError: The labels are unknown, not given, or no classes of the model.
    """
    log_p = torch.log_softmax(logits.detach().double(), dim=-1)
    p, classes = log_p.exp(), logits.shape[-1]
    if labels == "auto":
        labels = "exact" if classes - 1 <= draws else "probe"
    if labels == "exact":
        root = SquareRoot(log_p)
        yield from (root.column(j) for j in range(classes - 1))
    elif labels == "probe":
        root = SquareRoot(log_p)
        signs = np.where(_random(seed, samples, (draws, classes - 1)) < 0.5, -1.0, 1.0) / draws**0.5
        yield from (root.times(torch.from_numpy(signs[:, draw]).to(p.device)) for draw in range(draws))
    elif labels == "sampled":
        uniform = torch.from_numpy(_random(seed, samples, (draws,))).to(p.device)
        for draw in range(draws):
            chosen = (p.cumsum(-1) < uniform[:, draw, None]).sum(-1).clamp_max(classes - 1)
            yield (_one_hot(chosen, p) - p) / draws**0.5
    elif labels == "data":
        yield _one_hot(_checked(truth, logits.shape).to(p.device), p) - p
    else:
        raise AdapterError(f"labels {labels!r} is none of {', '.join(LABELS)}")


class SquareRoot:
    """R with R R^T = diag(p) - p p^T, shape (S, C, C - 1), never formed.

    The Cholesky factor of a multinomial covariance in closed form: with tails t_j = p_j + p_{j+1} + ...,
    its column j is sqrt(p_j t_{j+1} / t_j) at j and -p_i sqrt(p_j / (t_j t_{j+1})) below. Classes are taken
    from the rarest to the likeliest, which keeps the tails away from zero.

    Source: Tanabe and Sagae (1992), doi:10.1111/j.2517-6161.1992.tb01875.x.

    Args:
        log_p: Log-probabilities, shape (S, C), float64.
    """

    def __init__(self, log_p: torch.Tensor) -> None:
        ordered, self._order = log_p.sort(dim=-1)
        self._p = ordered.exp()
        tails = self._p.flip(-1).cumsum(-1).flip(-1)
        here, after = tails[:, :-1], tails[:, 1:]
        tiny = torch.finfo(log_p.dtype).tiny
        self._at = (self._p[:, :-1] * after / here.clamp_min(tiny)).sqrt()
        self._below = (self._p[:, :-1] / here.clamp_min(tiny) / after.clamp_min(tiny)).sqrt()

    def column(self, j: int) -> torch.Tensor:
        """Column j, shape (S, C)."""
        column = -self._p * self._below[:, j, None]
        column[:, :j] = 0
        column[:, j] = self._at[:, j]
        return self._unsorted(column)

    def times(self, vector: torch.Tensor) -> torch.Tensor:
        """R times a vector per sample, shape (S, C - 1) to (S, C)."""
        zero = vector.new_zeros(len(vector), 1)
        before = torch.cat([zero, (self._below * vector).cumsum(-1)], dim=-1)
        return self._unsorted(torch.cat([self._at * vector, zero], dim=-1) - self._p * before)

    def _unsorted(self, values: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(values).scatter_(1, self._order, values)


def _checked(truth: np.ndarray | None, shape: torch.Size) -> torch.Tensor:
    if truth is None:
        raise AdapterError(
            "the empirical Fisher information needs labels; give labelled data or use true labels"
        )
    if truth.shape != shape[:1] or truth.min() < 0 or truth.max() >= shape[1]:
        raise AdapterError(
            f"labels run from {truth.min()} to {truth.max()}, but the model has {shape[1]} classes"
        )
    return torch.from_numpy(np.asarray(truth, dtype=np.int64))


def _one_hot(chosen: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(chosen, p.shape[-1]).to(p.dtype)


def _random(seed: int, samples: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers that depend on the seed and each sample's own number, shape (S, *shape), float64."""
    return np.stack([np.random.default_rng((seed, int(n))).random(shape) for n in samples])
