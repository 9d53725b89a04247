"""Pieces of messages that have to fit on one line, whatever a file or another library put into them."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST, _LONGEST_NAME = 200, 100


def reason(err: BaseException, *, last: bool = False) -> str:
    r"""What another library's error says, in a line of at most 200 characters.

    Args:
        err: The error.
        last: Take the last line of its text, not the first.

    >>> reason(ValueError("broken\nin many ways")), reason(KeyError())
    ('broken', 'KeyError')
    """
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    text = lines[-1 if last else 0] if lines else type(err).__name__
    return _clipped(printable(text), _LONGEST)


def described(err: BaseException) -> str:
    r"""The kind of an error and all it says, in a line of at most 200 characters.

    >>> described(TypeError("no argument '\n'"))
    "TypeError: no argument '\ufffd'"
    """
    return _clipped(printable(f"{type(err).__name__}: {err}"), _LONGEST)


def root_cause(err: BaseException) -> BaseException:
    """What an error was raised from, and that in turn, to the first that went wrong."""
    seen = {id(err)}
    while True:
        cause = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
        if cause is None or id(cause) in seen:
            return err
        seen.add(id(cause))
        err = cause


def printable(text: str) -> str:
    """The text with replacement marks for line breaks and all else that cannot be printed."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def listed(names: Sequence[str], *, most: int = 4, separator: str = ", ") -> str:
    """The first few of some names, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = separator.join(_clipped(printable(name), _LONGEST_NAME) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
