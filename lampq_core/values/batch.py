"""What goes into a model and what comes out: arrays by name, samples first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lampq.core.values.errors import RecordError

Group = Mapping[str, np.ndarray]
"""Arrays by name whose samples have one shape, samples first."""


class Batch:
    """Samples as named arrays, in groups of one shape each. Nothing in it is copied or changed.

    Images of several sizes or texts of several lengths are several groups; everything else is one. A sample's
    number is its place in all groups one after the other.

    Args:
        groups: Mappings from name to array, samples first. All groups have the same names, and all arrays of a
            group the same number of samples, at least one.

    Raises:
        RecordError: Names or numbers of samples differ, or there is nothing.

    Example:
        >>> batch = Batch.of(np.zeros((4, 3)), name="image")
        >>> batch.samples, batch.names, batch.take([0, 2])["image"].shape
        (4, ('image',), (2, 3))
    """

    __slots__ = ("_groups", "_sizes")

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups: tuple[dict[str, np.ndarray], ...] = tuple(
            {name: np.asarray(array) for name, array in group.items()} for group in groups
        )
        if not self._groups or not self._groups[0]:
            raise RecordError("a batch needs at least one array")
        self._sizes = tuple(_samples(group) for group in self._groups)
        names = set(self.names)
        for group in self._groups:
            if set(group) != names:
                lacking = sorted(names ^ set(group))[0]
                raise RecordError(f"only some samples of a batch have {lacking!r}")

    @classmethod
    def of(cls, arrays: np.ndarray | Group | Batch, *, name: str = "x") -> Batch:
        """A batch of one group: from named arrays, or from one array called `name`. A batch is returned as it is."""
        if isinstance(arrays, Batch):
            return arrays
        return cls([dict(arrays) if isinstance(arrays, Mapping) else {name: np.asarray(arrays)}])

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in order."""
        return self._groups

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each group."""
        return self._sizes

    @property
    def samples(self) -> int:
        """Samples in all groups."""
        return sum(self._sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._groups[0])

    @property
    def digest(self) -> str:
        """What tells the samples from others, in hexadecimal."""
        content = hashlib.blake2b(digest_size=16)
        for group in self._groups:
            for name, array in group.items():
                content.update(f"{name} {array.dtype.str} {array.shape} ".encode())
                content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of a name, where there is one group.

        Raises:
            RecordError: There is no such name, or samples of several shapes.
        """
        if name not in self._groups[0]:
            raise RecordError(f"no array is called {name!r}; there are {', '.join(self.names)}")
        if len(self._groups) > 1:
            raise RecordError(f"the samples of {name!r} have several shapes; take them group by group")
        return self._groups[0][name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """A batch of one array is that array wherever NumPy wants one.

        Raises:
            RecordError: There are several.
        """
        if len(self.names) > 1:
            raise RecordError(f"a batch of {', '.join(self.names)} is no single array; name one")
        return np.array(self[self.names[0]], dtype=dtype, copy=copy)

    def renamed(self, names: Mapping[str, str]) -> Batch:
        """The same arrays, some under other names.

        Args:
            names: From the name an array has to the one it gets.
        """
        return Batch([{names.get(name, name): a for name, a in group.items()} for group in self._groups])

    def take(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """Some of the samples, by number, each group in the order in which its own are named.

        Raises:
            RecordError: None is taken, or there is no sample of a number.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        missing = wanted[(wanted < 0) | (wanted >= self.samples)]
        if missing.size:
            raise RecordError(f"no sample {missing[0]}; there are {self.samples}, counted from 0")
        parts, start = [], 0
        for group, size in zip(self._groups, self._sizes, strict=True):
            inside = wanted[(wanted >= start) & (wanted < start + size)] - start
            if inside.size:
                parts.append({name: array[inside] for name, array in group.items()})
            start += size
        if not parts:
            raise RecordError("no sample of the batch is taken")
        return Batch(parts)

    def only(self, names: Sequence[str]) -> Batch:
        """The arrays of these names."""
        for name in names:
            if name not in self._groups[0]:
                raise RecordError(f"no array is called {name!r}; there are {', '.join(self.names)}")
        return Batch([{name: group[name] for name in names} for group in self._groups])

    def beside(self, other: Batch) -> Batch:
        """The arrays of both, group by group; those of `other` win where names are equal.

        Raises:
            RecordError: The groups do not fit each other.
        """
        _fit(self, other)
        return Batch([{**mine, **theirs} for mine, theirs in zip(self._groups, other._groups, strict=True)])

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Batch:
        """A function applied to every array."""
        return Batch([{name: function(array) for name, array in group.items()} for group in self._groups])

    def minus(self, other: Batch) -> Batch:
        """Differences array by array, float32; equal values differ by zero, infinite ones too.

        Raises:
            RecordError: The two do not fit each other.
        """
        return self._with(other, _difference)

    def plus(self, other: Batch) -> Batch:
        """Sums array by array, float32.

        Raises:
            RecordError: The two do not fit each other.
        """
        return self._with(other, lambda a, b: np.add(a, b, dtype=np.float32, casting="unsafe"))

    def _with(self, other: Batch, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Batch:
        _fit(self, other)
        groups = []
        for mine, theirs in zip(self._groups, other._groups, strict=True):
            shared = [name for name in mine if name in theirs]
            for name in shared:
                if mine[name].shape != theirs[name].shape:
                    raise RecordError(f"{name!r} has shape {theirs[name].shape}; expected {mine[name].shape}")
            groups.append({name: function(mine[name], theirs[name]) for name in shared})
        return Batch(groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __repr__(self) -> str:
        shapes = ("; ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in g.items()) for g in self._groups)
        return f"Batch({' | '.join(shapes)})"


BatchLike: TypeAlias = Batch | np.ndarray | Group
"""What functions take for a batch: a lone array goes to a model's only input, whatever it is called."""


def join(batches: Sequence[Batch]) -> Batch:
    """Batches one after the other; neighbouring groups of one shape become one.

    Raises:
        RecordError: Their names differ.
    """
    runs: list[list[Group]] = []
    for group in (group for batch in batches for group in batch.groups):
        if runs and _shapes(runs[-1][0]) == _shapes(group):
            runs[-1].append(group)
        else:
            runs.append([group])
    return Batch([{n: np.concatenate([g[n] for g in run]) for n in run[0]} for run in runs])


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        # Masks are integers, which NumPy calls unsafe to cast.
        difference = np.subtract(one, other, dtype=np.float32, casting="unsafe")
    if not np.isfinite(difference).all():
        difference = np.where(one == other, np.float32(0), difference)
    return difference


def _samples(group: Group) -> int:
    sizes = {name: (len(array) if array.ndim else 0) for name, array in group.items()}
    first = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size != first:
            one = next(iter(sizes))
            raise RecordError(f"{one!r} has {first} samples and {name!r} {size}; samples come first")
    if first < 1:
        raise RecordError(f"a batch of no samples ({next(iter(sizes))!r})")
    return first


def _shapes(group: Group) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in group.items()}


def _fit(one: Batch, other: Batch) -> None:
    if one.sizes != other.sizes:
        raise RecordError(f"batches of {one.samples} and {other.samples} samples do not fit each other")
