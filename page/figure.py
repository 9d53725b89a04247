"""Charts that fit any width: marks in an SVG that stretches, words as HTML that does not.

A line or a dot keeps its thickness however the picture is stretched (non-scaling strokes; a dot is a line of no
length with round ends), and letters keep their size and shape because they are laid over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lampq.page.axis import Axis
from lampq.page.markup import safe

_SCALE = 1000


@dataclass(slots=True)
class Plot:
    """A chart under construction.

    Attributes:
        x: Horizontal scale.
        y: Vertical scale, upwards.
        title: What it shows, for screen readers.
        x_title: Words under the horizontal axis.
        y_title: Words above the vertical axis.
    """

    x: Axis
    y: Axis
    title: str
    x_title: str
    y_title: str
    _marks: list[str] = field(default_factory=list)
    _words: list[str] = field(default_factory=list)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """A line through points."""
        places = [f"{a:.1f} {b:.1f}" for a, b in (self._place(*point) for point in points)]
        if places:
            self._marks.append(f'<path class="{style}" d="M{"L".join(places)}"/>')

    def area(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """What lies below a line."""
        places = [self._place(*point) for point in points]
        if places:
            d = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
            d = f"M{places[0][0]:.1f} {_SCALE}L{d}L{places[-1][0]:.1f} {_SCALE}Z"
            self._marks.append(f'<path class="{style}" d="{d}"/>')

    def dot(self, x: float, y: float, style: str, tip: str) -> None:
        """A dot with words for the pointer that rests on it."""
        a, b = self._place(x, y)
        d = f"M{a:.1f} {b:.1f}h0"
        self._marks.append(
            f'<g class="dot {style}"><title>{safe(tip)}</title>'
            f'<path class="rim" d="{d}"/><path class="core" d="{d}"/></g>'
        )

    def word(self, x: float, y: float, text: str, style: str = "") -> None:
        """A word beside a place; `style` says on which side, turned inwards near the edges."""
        a, b = self._place(x, y)
        edge = " inward" if a > 0.8 * _SCALE else " outward" if a < 0.2 * _SCALE else ""
        self._words.append(
            f'<span class="word {style}{edge}" style="left:{a / 10:.1f}%;top:{b / 10:.1f}%">{safe(text)}</span>'
        )

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return _SCALE * self.x.place(x), _SCALE * (1 - self.y.place(y))

    def render(self, height_px: int = 320) -> str:
        """The chart as HTML."""
        across = [(1000 * self.x.place(tick), self.x.label(tick)) for tick in self.x.ticks]
        up = [(1000 - 1000 * self.y.place(tick), self.y.label(tick)) for tick in self.y.ticks]
        grid = "".join(f"M0 {b:.1f}H1000" for b, _ in up)
        ticks = "".join(f"M{a:.1f} 1000v-12" for a, _ in across)
        x_labels = "".join(f'<span style="left:{a / 10:.1f}%">{safe(text)}</span>' for a, text in across)
        y_labels = "".join(f'<span style="top:{b / 10:.1f}%">{safe(text)}</span>' for b, text in up)
        return (
            f'<div class="plot" style="--height:{height_px}px">'
            f'<div class="y-title">{safe(self.y_title)}</div>'
            f'<div class="y-labels" aria-hidden="true">{y_labels}</div>'
            f'<div class="area" data-x="{_ends(self.x)}" data-y="{_ends(self.y)}">'
            f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img">'
            f'<title>{safe(self.title)}</title><path class="grid" d="{grid}"/>'
            f'<path class="axis" d="M0 1000H1000{ticks}"/>{"".join(self._marks)}</svg>{"".join(self._words)}</div>'
            f'<div class="x-labels" aria-hidden="true">{x_labels}</div>'
            f'<div class="x-title">{safe(self.x_title)}</div></div>'
        )


def _ends(axis: Axis) -> str:
    """Both ends of an axis, for the script that moves a dot along it."""
    return f"{float(axis.low)!r} {float(axis.high)!r}"


def fold(summary: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same figures as a table, folded away until someone asks."""
    head = "".join(f"<th scope=col>{safe(column)}" for column in columns)
    body = "".join(
        f"<tr><th scope=row>{safe(row[0])}" + "".join(f"<td>{safe(value)}" for value in row[1:])
        for row in rows
    )
    return (
        f'<details><summary>{safe(summary)}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{safe(summary)}"><table class="figures" '
        f'aria-label="{safe(summary)}"><thead><tr>{head}<tbody>{body}</table></div></details>'
    )


def section(identity: str, title: str, lead: str, body: str, *, of_this_plan: bool = False) -> str:
    """A part of the page.

    Args:
        identity: Its place in the page.
        title: Heading.
        lead: First sentences, HTML.
        body: What follows, HTML.
        of_this_plan: The sentences are of the page's own plan and of no other that the body may come to show.
    """
    style = "lead own" if of_this_plan else "lead"
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-title"><h2 id="{identity}-title">{safe(title)}</h2>'
        f'<p class="{style}">{lead}</p>{body}</section>'
    )
