"""Imports of other people's packages, without what they print on the way."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keep both outputs clean as long as the block lasts: results go to one, and people read the other.

    Frameworks greet, warn of missing GPUs and of their own future when they are imported, from Python and from C. What
    goes wrong with an import is an exception, which passes.
    """
    with contextlib.ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        for descriptor in (1, 2):
            # Without such a descriptor there is nothing to keep clean.
            with contextlib.suppress(OSError):
                stack.enter_context(_diverted(descriptor))
        yield


@contextlib.contextmanager
def _diverted(descriptor: int) -> Iterator[None]:
    """What code in C writes goes to a file that nobody reads."""
    own = os.dup(descriptor)
    try:
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
            try:
                yield
            finally:
                os.dup2(own, descriptor)
    finally:
        os.close(own)
