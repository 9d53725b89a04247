"""The command `lampq`.

Until `main` runs an interrupt shows a traceback, so this file, and what comes before it, import next to nothing.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after the program's name; None takes the process's own.

    Returns:
        0 on success, 2 on bad input and on what the operating system refuses (one line on standard error), 130 when
        interrupted. Anything else is a bug and shows its traceback.
    """
    try:
        from lampq.console.program import run

        return run(argv)
    except KeyboardInterrupt:
        print("lampq: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
