"""Globs over layer names in bounded time: `*`, `?`, brace lists `{a,b}`, and the text under each star.

Python's regular expressions try every way to share a name out among the stars, which is exponential in their number.
Here each place of the pattern is tried at each place of a name once: what failed there before fails again (the "bit
state" of RE2). So a match takes at most pattern x name steps, and the first in the order of trial is the same: an
earlier star takes the least, an earlier alternative wins.
"""

from __future__ import annotations

from typing import NamedTuple

from lampq.core.values.errors import PlanError

_LONGEST = 1000
_MOST_STEPS = 500_000


_Spans = tuple["_Spans", int, int] | tuple[()]
"""Where captured text begins and ends, the last one first: (those before it, begin, end)."""


class _Op(NamedTuple):
    """An instruction.

    Attributes:
        kind: `text`, `any` (one character), `star` (any number), `fork` (go on at one of some places) or `end`.
        text: What `text` takes of a name.
        captures: Whether what `any` or `star` takes tells matches apart.
        targets: Where `fork` goes on, the first choice first.
    """

    kind: str
    text: str = ""
    captures: bool = False
    targets: tuple[int, ...] = ()


class Glob:
    """A pattern, to be held against many names.

    Args:
        pattern: The glob. Stars and question marks capture what they match, except within a brace list.

    Raises:
        PlanError: A brace is not closed, or the pattern is too long.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST:
            raise PlanError(f"pattern {pattern[:40]!r}...: longer than {_LONGEST} characters")
        self._pattern = pattern
        self._program = _compiled(pattern)
        self._steps = 0

    def match(self, name: str) -> tuple[str, ...] | None:
        """What the stars and question marks stand for where the pattern matches the whole name, else None.

        Raises:
            PlanError: All names so far took more steps than any sensible pattern.

        >>> Glob("blocks.*.attn.{q,k}").match("blocks.1.attn.k")
        ('1',)
        """
        seen: set[tuple[int, int]] = set()
        # Place in the program and in the name, where the star at hand began, and the spans captured so far.
        stack: list[tuple[int, int, int | None, _Spans]] = [(0, 0, None, ())]
        while stack:
            at, place, began, spans = stack.pop()
            if (at, place) in seen:
                continue
            seen.add((at, place))
            self._count()
            op = self._program[at]
            if op.kind == "end":
                if place == len(name):
                    return _texts(name, spans)
            elif op.kind == "fork":
                stack += [(target, place, None, spans) for target in reversed(op.targets)]
            elif op.kind == "text":
                if name.startswith(op.text, place):
                    stack.append((at + 1, place + len(op.text), None, spans))
            elif op.kind == "any":
                if place < len(name):
                    more = (spans, place, place + 1) if op.captures else spans
                    stack.append((at + 1, place + 1, None, more))
            else:
                first = place if began is None else began
                # The text behind a star says where it can end at all.
                behind = self._program[at + 1]
                end = name.find(behind.text, place) if behind.kind == "text" else place
                if end >= 0:
                    if end < len(name):
                        stack.append((at, end + 1, first, spans))
                    stack.append((at + 1, end, None, (spans, first, end) if op.captures else spans))
        return None

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise PlanError(
                f"pattern {self._pattern[:40]!r}: more than {_MOST_STEPS:,} steps; use fewer stars and braces"
            )


def _texts(name: str, spans: _Spans) -> tuple[str, ...]:
    texts: list[str] = []
    while spans:
        spans, start, end = spans
        texts.append(name[start:end])
    return tuple(reversed(texts))


def _compiled(pattern: str) -> list[_Op]:
    ops: list[_Op] = []
    # Of each open brace: its fork, the starts of its alternatives, and the ends of all but the last.
    open_braces: list[tuple[int, list[int], list[int]]] = []
    joins = False
    for char in pattern:
        plain = char not in "*?{" and not (char in ",}" and open_braces)
        if plain and joins:
            ops[-1] = _Op("text", ops[-1].text + char)
        elif plain:
            ops.append(_Op("text", char))
        elif char in "*?":
            ops.append(_Op("star" if char == "*" else "any", captures=not open_braces))
        elif char == "{":
            open_braces.append((len(ops), [len(ops) + 1], []))
            ops.append(_Op("fork"))
        elif char == ",":
            open_braces[-1][2].append(len(ops))
            ops.append(_Op("fork"))
            open_braces[-1][1].append(len(ops))
        else:
            fork, starts, ends = open_braces.pop()
            ops[fork] = _Op("fork", targets=tuple(starts))
            for end in ends:
                ops[end] = _Op("fork", targets=(len(ops),))
        # After a brace something else may lead here.
        joins = plain
    if open_braces:
        raise PlanError(f"pattern {pattern!r}: a brace is not closed")
    return [*ops, _Op("end")]
