"""The errors a caller can act on. Each message says what is wrong, where, and what to do next."""

from __future__ import annotations


class LampqError(Exception):
    """Base of every error that bad input can cause; the command line shows it as one line."""


class RecordError(LampqError, ValueError):
    """A value (statistic, layer, profile) that cannot be: NaN weights, negative sizes, clashing shapes."""


class StateError(RecordError):
    """What a run has kept of its work (`OUT.state`) does not fit the work."""


class BudgetError(LampqError, ValueError):
    """A budget nothing can meet, or a limit that is no quantity."""


class PlanError(LampqError, ValueError):
    """A plan that is malformed, or made for another model."""


class AdapterError(LampqError, ValueError):
    """A model or data file that cannot be read, run or written."""


class NoGradientsError(AdapterError):
    """A model whose gradients cannot be taken here, though it runs; the message is the reason alone."""


class OutputError(LampqError, OSError):
    """An output that cannot be written: a full disk, a read-only folder, a name too long, a device."""


class OutputExistsError(OutputError, FileExistsError):
    """An output is already there and may not be replaced: not asked for, or something that the command reads."""


class SolverError(LampqError, RuntimeError):
    """A solver that failed, or an answer that did not survive certification."""


class WorkerError(LampqError, RuntimeError):
    """A part of shared work that no worker finishes, or workers that cannot be reached."""


class MissingExtraError(LampqError, ImportError):
    """An optional package is not installed, or cannot be imported.

    Args:
        package: The distribution that is missing.
        extra: The extra of lampq that brings it.
        cause: Why it cannot be imported.
    """

    def __init__(self, package: str, extra: str, cause: ImportError | None = None) -> None:
        broken = cause is not None and not isinstance(cause, ModuleNotFoundError)
        what = f"cannot be imported ({' '.join(str(cause).split())[:200]})" if broken else "is not installed"
        again = "--force-reinstall " if broken else ""
        super().__init__(f"{package} {what}; run: pip install {again}'lampq[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Errors of workers come back through pickles."""
        return type(self), (self.package, self.extra)
