"""Regular expressions out of a configuration, held against addresses in a process that may be ended.

An expression can be made so that Python tries more ways than there is time for, and nothing tells which do. So a child
process does the matching, with a limit on its processor time; where all of them are names spelt out, none is needed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from lampq.core.values.errors import PlanError

SEARCH, MATCH, FULL = "search", "match", "fullmatch"
"""Whether an expression may match anywhere, must at the beginning, or must match the whole: methods of `re.Pattern`."""

_LIMIT_S = 1
# The clock may run this much longer than the processor time: on a busy machine an honest child waits its turn.
_PATIENCE = 12
_LONGEST, _MOST = 2000, 10_000
_CHILD = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 28,) * 2)
except (ImportError, ValueError, OSError):
    pass
how, expressions, names = json.load(sys.stdin)
results = []
for text in expressions:
    try:
        test = getattr(re.compile(text), how)
        results.append([index for index, name in enumerate(names) if test(name)])
    except (re.error, OverflowError, RecursionError, MemoryError) as err:
        results.append(str(err) or type(err).__name__)
json.dump(results, sys.stdout)
"""
# A name spelt out, every special character escaped, from the beginning to the end.
_SPELT = re.compile(r"\^?((?:[\w ,;:/<>=!@%&\"'`~-]|\\\W)*)\$")


def fitting(expressions: Sequence[str], names: Sequence[str], how: str) -> list[list[str]]:
    """The names that each expression matches.

    Args:
        expressions: Regular expressions as Python has them.
        names: What they are held against.
        how: `SEARCH`, `MATCH` or `FULL`.

    Raises:
        PlanError: One is malformed, or all of them together take longer than a second.
    """
    if len(expressions) > _MOST:
        raise PlanError(f"{len(expressions):,} regular expressions; at most {_MOST:,} are read")
    for text in expressions:
        if len(text) > _LONGEST:
            raise PlanError(f"regular expression {text[:60]!r}...: longer than {_LONGEST} characters")
    exact = {text: _spelt(text, how) for text in expressions}
    open_ended = [text for text, name in exact.items() if name is None]
    matched = dict(zip(open_ended, _in_child(open_ended, names, how), strict=True)) if open_ended else {}
    known = set(names)
    spelt = {text: [name] if name in known else [] for text, name in exact.items() if name is not None}
    return [matched[text] if text in matched else spelt[text] for text in expressions]


def _spelt(text: str, how: str) -> str | None:
    """The one name that an expression can match, or None where it may be several."""
    if how == SEARCH and not text.startswith("^"):
        return None
    plain = _SPELT.fullmatch(text if how != FULL or text.endswith("$") else f"{text}$")
    return None if plain is None else re.sub(r"\\(\W)", r"\1", plain[1])


def _in_child(expressions: list[str], names: Sequence[str], how: str) -> list[list[str]]:
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _CHILD, str(_LIMIT_S)]
    slow = PlanError(
        f"its regular expressions take longer than {_LIMIT_S} second to match; write simpler ones "
        f"({expressions[0][:60]!r}{' and others' if len(expressions) > 1 else ''})"
    )
    try:
        done = subprocess.run(
            command,
            input=json.dumps([how, expressions, list(names)]).encode(),
            capture_output=True,
            timeout=_PATIENCE * _LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise slow from err
    if done.returncode:
        raise slow
    results = json.loads(done.stdout)
    for text, result in zip(expressions, results, strict=True):
        if isinstance(result, str):
            raise PlanError(f"regex {text[:60]!r} is no regular expression ({result})")
    return [[names[index] for index in result] for result in results]
