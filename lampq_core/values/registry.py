"""Records by name: those of lampq, those added while it runs, and those that installed packages announce.

A package announces a record as an entry point. None is looked for before a name is asked that is not in the table, and
none is imported before its own name is asked, or all records are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from lampq.core.values.errors import LampqError
from lampq.core.values.messages import printable, reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """What it is called."""


R = TypeVar("R", bound=Named)


class Registry(Generic[R]):
    """Records of one kind.

    Names of lampq's own records cannot be taken over, and a package that fails to import spoils its own name alone.

    Attributes:
        group: Group of the entry points.
    """

    def __init__(
        self,
        own: Iterable[R],
        *,
        what: str,
        group: str,
        error: type[LampqError],
        kind: type[R] | None = None,
    ) -> None:
        """A registry.

        Args:
            own: Records of lampq, in the order in which they are listed; all of one class.
            what: What messages call such a record.
            group: Group of the entry points.
            error: What is raised where a record cannot be had.
            kind: Their class; None: that of the first of `own`.
        """
        self.group = group
        self._own = {record.name: record for record in own}
        self._added: dict[str, R] = {}
        self._class = type(next(iter(self._own.values()))) if kind is None else kind
        self._what, self._error = what, error

    def add(self, record: R) -> None:
        """Make a record known while the program runs; one that was added under its name before gives way.

        Raises:
            LampqError: It is no such record, or lampq has one of its name.
        """
        if not isinstance(record, self._class):
            raise self._error(
                f"{type(record).__name__} given as a {self._what}; make a {self._class.__name__} of it"
            )
        if record.name in self._own:
            raise self._error(f"{self._what} {record.name!r} is one of lampq; choose another name")
        self._added[record.name] = record

    def get(self, name: str) -> R:
        """The record of a name.

        Raises:
            LampqError: There is none, two packages have one, or it cannot be loaded.
        """
        record = self._own.get(name) or self._added.get(name)
        if record is not None:
            return record
        points = self._points()
        if name not in points:
            raise self._error(
                f"{self._what} {name!r} is none of {', '.join((*self.loaded, *points))}; "
                f"or install the package that announces it (entry points {self.group})"
            )
        return self._load(name, points[name])

    @property
    def loaded(self) -> dict[str, R]:
        """The records at hand, without asking any package."""
        return self._own | self._added

    def __contains__(self, name: object) -> bool:
        """Whether there is a record of this name; it need not be one that can be loaded."""
        return name in self.loaded or name in self._points()

    def names(self) -> tuple[str, ...]:
        """All names, those of packages last; nothing is imported."""
        return (*self.loaded, *self._points())

    def announced(self) -> tuple[tuple[R, ...], tuple[str, ...]]:
        """The records of packages, and a line for each that cannot be loaded."""
        records, failures = [], []
        for name, points in self._points().items():
            try:
                records.append(self._load(name, points))
            except LampqError as err:
                failures.append(str(err))
        return tuple(records), tuple(failures)

    def _points(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name, without names that are at hand and without what is announced twice alike."""
        # Takes longer to load than planning takes.
        from importlib.metadata import entry_points

        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            same = points.setdefault(point.name, [])
            if all(other.value != point.value for other in same):
                same.append(point)
        return {printable(name): same for name, same in points.items() if name not in self.loaded}

    def _load(self, name: str, points: list[EntryPoint]) -> R:
        who = f"{self._what} {name!r}"
        if len(points) > 1:
            raise self._error(
                f"{who} is announced by {' and '.join(map(_origin, points))}; uninstall all but one"
            )
        try:
            record = points[0].load()
        except Exception as err:  # Whatever the package stumbles over, the others work.
            raise self._error(
                f"{who} of {_origin(points[0])} cannot be loaded ({type(err).__name__}: {reason(err)}); "
                f"repair the package or uninstall it"
            ) from err
        if not isinstance(record, self._class) or record.name != name:
            raise self._error(
                f"{who} of {_origin(points[0])}: {printable(points[0].value)} is no {self._class.__name__} of this name"
            )
        return record


def _origin(point: EntryPoint) -> str:
    """The package that announces an entry point."""
    dist = getattr(point, "dist", None)
    return printable(point.value if dist is None else f"{dist.name} {dist.version}")
