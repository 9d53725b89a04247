"""One command from its words to its exit code, whatever happens on the way."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from lampq.core.values.errors import LampqError
from lampq.core.values.messages import printable

_BAD_INPUT, _INTERRUPTED = 2, 130


def run(argv: Sequence[str] | None) -> int:
    """Run one command; see `lampq.cli.main`."""
    who = "lampq"
    _open_outputs()
    with _noted_interrupts() as interrupts, _any_text():
        try:
            from lampq.console.arguments import build_parser, parse

            args = parse(argv)
            if args.version:
                import lampq

                print(lampq.__version__)
                return 0
            if args.verb is None:
                build_parser(()).print_help(sys.stderr)
                return _BAD_INPUT
            who = f"lampq {args.verb}"
            from lampq.console import clashes

            clashes.refuse(args)
            args.run(args)
            sys.stdout.flush()
        except KeyboardInterrupt:
            return _leave(who, "interrupted", _INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output has gone; leave quietly, as other filters do.
            _discard_output()
            return 0
        except Exception as err:
            if interrupts:
                # Libraries that were being imported, and we of theirs, make errors of their own of it.
                return _leave(who, "interrupted", _INTERRUPTED)
            if isinstance(err, LampqError):
                return _leave(who, str(err), _BAD_INPUT)
            if isinstance(err, OSError | MemoryError):
                return _leave(who, _from_system(err), _BAD_INPUT)
            if isinstance(err, UnicodeEncodeError) and all(
                map(_is_raw_byte, err.object[err.start : err.end])
            ):
                return _leave(who, f"the name {err.object!r} is no text; rename the file", _BAD_INPUT)
            raise
    return 0


def _open_outputs() -> None:
    """Give a process that was started without outputs some that lead nowhere, so that no file gets their numbers."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115


def _leave(who: str, why: str, code: int) -> int:
    with contextlib.suppress(OSError):
        # Names out of files are part of messages; a terminal must not obey them.
        print(f"{who}: {printable(' '.join(why.split()))}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    return code


def _from_system(err: OSError | MemoryError) -> str:
    if isinstance(err, MemoryError):
        return "there is not enough memory"
    place = "" if err.filename is None else f"{os.fsdecode(err.filename)}: "
    return f"{place}{err.strerror or err}"


def _is_raw_byte(character: str) -> bool:
    """Whether a character stands for a byte of a file name that is no text."""
    return "\udc80" <= character <= "\udcff"


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """The interrupts of the user so far, raised as ever; some that arrive during an import are turned into others."""
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _any_text() -> Iterator[None]:
    """Print file names that are no text byte for byte, and what the terminal's encoding lacks as escapes."""
    stream = sys.stdout
    if not hasattr(stream, "reconfigure"):
        yield
        return
    codecs.register_error("lampq", _escape)
    before = stream.errors
    stream.reconfigure(errors="lampq")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors=before)


def _escape(err: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(err)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(err)
