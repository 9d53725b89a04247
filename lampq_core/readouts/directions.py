"""Directions in output space whose gradients make up the Fisher information.

With M the metric of an output and J its Jacobian, F = J^T M J. Every set of vectors v with E[v v^T] = M gives
tr(F) = E ||J^T v||^2, so one backward pass per vector is all it takes. What differs is how much the estimate scatters:

- `probe`: a square root of M times random signs, for any heads together.

A lone head of classes with one position, M = diag(p) - p p^T, has more:

- `exact`: the classes - 1 columns of a triangular square root; no scatter at all.
- `principal`: the directions that carry most of M, the last of them for the rest as well (`principal.py`): hardly any
  scatter from three passes, however many classes there are. `exact` where that is no dearer; `probe` for other heads.
- `sampled`: v = e_y - p with y drawn from p, as the definition has it. A sure prediction is nearly always
  drawn and nearly never the one that counts, so a few draws scatter widely.
- `data`: v = e_y - p with y the label of the data: the empirical Fisher information.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lampq.core.readouts.draws import Draws
from lampq.core.readouts.parts import mask_of
from lampq.core.readouts.principal import principal
from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import from_rows, to_rows
from lampq.core.readouts.softmax import log_softmax
from lampq.core.readouts.square_root import SquareRoot
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head


def directions(
    heads: Sequence[Head], roles: Sequence[Role], reference: Batch, draws: Draws
) -> Iterator[Batch]:
    """Vectors v per head, float64, scaled so that the sum of ||J^T v||^2 over them estimates tr(F) per sample.

    Args:
        heads: Judged heads.
        roles: Their roles.
        reference: Float outputs with masks.
        draws: Which, and how many.

    Raises:
        AdapterError: Labels are missing, no classes of the model, or of no use for its outputs; or there are numbers
            of more or fewer samples.
    """
    draws = draws.of(reference.samples)
    labels, count = draws.labels, draws.count
    if labels == "auto" and draws.truth is not None:
        labels = "data"
    if labels == "auto":
        labels = "exact" if lone_classes(heads, reference, most=count + 1) else "probe"
    if labels == "principal":
        labels = _affordable(heads, reference, count)
    if labels == "probe":
        return _probes(heads, roles, reference, count, _generators(draws))
    if not lone_classes(heads, reference):
        raise AdapterError(
            f"labels {labels!r} need a model whose one output is classes of the whole sample; take 'probe'"
        )
    log_p = np.concatenate(
        [log_softmax(to_rows(group[heads[0].name], heads[0].axis)[:, 0]) for group in reference.groups]
    )
    if labels == "exact":
        vectors: Iterator[np.ndarray] = SquareRoot(log_p).columns()
    elif labels == "principal":
        vectors = principal(log_p, count, _signs(_generators(draws), log_p.shape[1:]))
    elif labels == "sampled":
        vectors = _sampled(np.exp(log_p), count, _generators(draws))
    else:
        p = np.exp(log_p)
        vectors = iter([_one_hot(_checked(draws.truth, p.shape), p) - p])
    return (_shaped(heads[0], reference, vector) for vector in vectors)


def _affordable(heads: Sequence[Head], reference: Batch, count: int) -> str:
    """The labels of least scatter that `count` passes can have."""
    if count < 2 or not lone_classes(heads, reference):
        return "probe"
    return "exact" if lone_classes(heads, reference, most=count + 1) else "principal"


def lone_classes(heads: Sequence[Head], reference: Batch, *, most: int | None = None) -> bool:
    """Whether there is one head, of classes with one position, and of no more than `most` of them."""
    head = heads[0]
    if len(heads) > 1 or head.role != CLASSES or head.mask:
        return False
    shapes = {to_rows(group[head.name], head.axis).shape[1:] for group in reference.groups}
    positions, classes = max(shapes)
    return len(shapes) == 1 and positions == 1 and (most is None or classes <= most)


def _probes(
    heads: Sequence[Head],
    roles: Sequence[Role],
    reference: Batch,
    count: int,
    generators: list[np.random.Generator],
) -> Iterator[Batch]:
    for _ in range(count):
        groups, start = [], 0
        for group, size in zip(reference.groups, reference.sizes, strict=True):
            own = generators[start : start + size]
            vectors = {}
            for head, role in zip(heads, roles, strict=True):
                output = group[head.name]
                signs = _signs(own, role.signs_shape(output.shape)[1:])
                probe = role.probe(output, mask_of(group, head), signs)
                vectors[head.name] = probe * (head.weight / count) ** 0.5
            groups.append(vectors)
            start += size
        yield Batch(groups)


def _sampled(p: np.ndarray, count: int, generators: list[np.random.Generator]) -> Iterator[np.ndarray]:
    edges = np.cumsum(p, axis=-1)
    for _ in range(count):
        drawn = (edges < _uniform(generators, ())[:, None]).sum(axis=-1)
        yield (_one_hot(np.minimum(drawn, p.shape[1] - 1), p) - p) / count**0.5


def _shaped(head: Head, reference: Batch, vector: np.ndarray) -> Batch:
    """A vector of all samples, shape (S, C), as a batch like the reference."""
    ends = np.cumsum(reference.sizes)[:-1]
    parts = np.split(vector * head.weight**0.5, ends)
    return Batch(
        [
            {head.name: from_rows(part[:, None], group[head.name].shape, head.axis)}
            for group, part in zip(reference.groups, parts, strict=True)
        ]
    )


def _checked(truth: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if truth is None:
        raise AdapterError(
            "the empirical Fisher information needs labels; give labelled data or use true labels"
        )
    truth = np.asarray(truth)
    if truth.shape != shape[:1]:
        raise AdapterError(f"{truth.size} labels for {shape[0]} samples; there must be one for each")
    if truth.min() < 0 or truth.max() >= shape[1]:
        raise AdapterError(
            f"labels run from {truth.min()} to {truth.max()}, but the model has {shape[1]} classes"
        )
    return truth.astype(np.int64)


def _one_hot(chosen: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (np.arange(p.shape[1]) == chosen[:, None]).astype(np.float64)


def _generators(draws: Draws) -> list[np.random.Generator]:
    """Random numbers that depend on the seed and each sample's own number."""
    return [np.random.default_rng((draws.seed, int(number))) for number in np.asarray(draws.samples)]


def _signs(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> np.ndarray:
    """Signs, -1 below one half, float64, shape (S, *shape)."""
    signs = _uniform(generators, shape)
    signs -= 0.5
    return np.copysign(1.0, signs, out=signs)


def _uniform(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> np.ndarray:
    uniform = np.empty((len(generators), *shape))
    for row, generator in enumerate(generators):
        uniform[row] = generator.random(shape)
    return uniform
