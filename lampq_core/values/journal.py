"""What long work has finished, kept beside its output, so that after a kill the same work goes on from there.

A journal is asked for a part before it is worked out, and given it afterwards. All else about the work is the same
whether a part was worked out or remembered, so whatever a kill cuts off, the end is the same to the last bit.
"""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lampq.core.values.errors import AdapterError, BudgetError, PlanError, RecordError, StateError
from lampq.core.values.journal_file import FORGET, JournalFile
from lampq.core.values.npz import read_npz

Arrays: TypeAlias = Mapping[str, np.ndarray]
Shapes: TypeAlias = Mapping[str, tuple[int | None, ...]]
"""By name of an array; None stands for any length."""

# Bad input; a full disk, a worker that dies or a package that is missing are none.
_REFUSALS = (RecordError, BudgetError, PlanError, AdapterError)

ENDING = ".state"
"""What the name of an output gets behind it for its journal."""


class Journal:
    """Finished parts of some work by name; without a file it remembers nothing.

    Args:
        file: Where they are kept.
        scope: Begins the names.
    """

    def __init__(self, file: JournalFile | None = None, scope: str = "") -> None:
        self._file = file
        self._scope = scope

    def within(self, name: str) -> Journal:
        """The journal of a piece of the work, whose names are its own."""
        return Journal(self._file, f"{self._scope}{name}/")

    def sibling(self, name: str) -> Sibling | None:
        """Where another process keeps its share of this work; removed with this journal. None without a file."""
        if self._file is None:
            return None
        output = self._file.path.with_name(f"{self._file.path.name.removesuffix(ENDING)}.{name}")
        return Sibling(output=output, owner={**self._file.owner, "part": name})

    def get(self, name: str, shapes: Shapes) -> dict[str, np.ndarray] | None:
        """The arrays of a finished part; None where it is not finished.

        Args:
            name: Of the part.
            shapes: What they must be.

        Raises:
            RecordError: They are something else, which only a file changed by others can hold.
        """
        content = None if self._file is None else self._file.read(self._scope + name)
        if content is None:
            return None
        try:
            arrays, _ = read_npz(io.BytesIO(content))
        except ValueError:
            arrays = {}
        if arrays.keys() != shapes.keys() or not all(_fits(arrays[n], shape) for n, shape in shapes.items()):
            raise StateError(f"{self._file} does not hold what this work keeps; {FORGET}")
        return arrays

    def put(self, name: str, **arrays: np.ndarray | float) -> None:
        """A part is finished."""
        self.put_all({name: {key: np.asarray(array) for key, array in arrays.items()}})

    def put_all(self, parts: Mapping[str, Arrays]) -> None:
        """Some parts are finished; a kill keeps all of them or none."""
        if self._file is not None:
            self._file.add({self._scope + name: _content(arrays) for name, arrays in parts.items()})

    def array(
        self, name: str, shape: tuple[int | None, ...], make: Callable[[], np.ndarray | float]
    ) -> np.ndarray:
        """The array of a part: as it was kept, or else made now.

        Raises:
            RecordError: See `get`.
        """
        stored = self.get(name, {"array": shape})
        if stored is not None:
            return stored["array"]
        made = np.asarray(make())
        self.put(name, array=made)
        return made

    def keep(self, name: str, tables: Arrays, place: tuple[int | slice, ...] = ()) -> None:
        """The cells of some tables at a place are filled: one part."""
        if self._file is not None:
            self.put(name, **{key: table[place] for key, table in tables.items()})

    def recall(self, name: str, tables: Arrays, place: tuple[int | slice, ...] = ()) -> bool:
        """Fill the cells that `keep` was given, if it was; whether it was.

        Raises:
            RecordError: See `get`.
        """
        if self._file is None:
            return False
        arrays = self.get(name, {key: np.shape(table[place]) for key, table in tables.items()})
        for key, array in (arrays or {}).items():
            tables[key][place] = array
        return arrays is not None


NOWHERE = Journal()
"""The journal of work that is done in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """A journal beside another one; a value that can be sent to other processes.

    Attributes:
        output: What it is named after.
        owner: See `journal_of`.
    """

    output: Path
    owner: Mapping[str, object]

    @contextlib.contextmanager
    def opened(self) -> Iterator[Journal]:
        """The journal, which stays when the block is left: it goes with the one that it is beside."""
        file = JournalFile(_path(self.output), self.owner, lambda _: None)
        try:
            yield Journal(file)
        finally:
            file.close(always=True)


def _path(output: Path) -> Path:
    return output.with_name(output.name + ENDING)


@contextlib.contextmanager
def journal_of(
    output: Path, owner: Mapping[str, object], *, fresh: bool = False, tell: Callable[[str], None]
) -> Iterator[Journal]:
    """The journal of the work that makes a file: kept when the block is left by an error or a kill, else removed.

    A refusal ends the work: the same command would be refused again, and another one would find a state of other work.

    Args:
        output: The file that is made; the journal lies beside it, its name with `.state` behind.
        owner: What the parts depend on (model, data, command, version), in JSON: that of a journal that is there must
            be the same.
        fresh: Forget a journal that is there.
        tell: Told, in one line, what a user should know: that the work goes on from somewhere, or cannot be kept.

    Raises:
        RecordError: The journal is of other work; says in what it differs.
        OutputExistsError: Another run is at it.
    """
    path = _path(output)
    siblings = glob.escape(output.name) + f".*-of-*{ENDING}"
    for old in (path, *path.parent.glob(siblings)) if fresh else ():
        old.unlink(missing_ok=True)
    file = JournalFile(path, owner, tell)

    def end() -> None:
        file.remove()
        for part in path.parent.glob(siblings):
            part.unlink(missing_ok=True)

    try:
        yield Journal(file)
        end()
    except StateError:
        raise
    except _REFUSALS:
        end()
        raise
    finally:
        file.close()


def _content(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez(buffer, **named)
    return buffer.getvalue()


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    sides = zip(array.shape, shape, strict=False)
    return array.dtype.kind in "biuf" and array.ndim == len(shape) and all(b in (None, a) for a, b in sides)
