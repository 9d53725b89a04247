"""The command `lampq`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lampq.core.errors import LampqError
from lampq.core.messages import printable, reason


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after the program's name; None takes the process's own.

    Returns:
        0 on success, 2 on bad input or where memory ends (one line on standard error), 130 when interrupted. Anything
        else is a bug and shows its traceback.
    """
    from lampq.console.arguments import build_parser

    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        import lampq

        print(lampq.__version__)
        return 0
    if args.verb is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        args.run(args)
        sys.stdout.flush()
    except LampqError as err:
        # Names out of files are part of messages; a terminal must not obey them.
        print(f"lampq {args.verb}: {printable(' '.join(str(err).split()))}", file=sys.stderr)
        return 2
    except MemoryError as err:
        print(f"lampq {args.verb}: out of memory ({printable(reason(err))})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"lampq {args.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; leave quietly, as other filters do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
