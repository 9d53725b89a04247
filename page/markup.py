"""Text that is safe inside HTML, and numbers as people read them."""

from __future__ import annotations

import html
import math
import re
from typing import Any

# Characters that no HTML text may hold, and halves of surrogate pairs, which no file may.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_LONGEST = 120


def safe(text: object) -> str:
    """Any text as HTML, in element content and in quoted attributes alike.

    >>> safe("<b> & 'c'")
    '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape(_FORBIDDEN.sub("�", str(text)), quote=True)


def short(text: str, most: int = _LONGEST) -> str:
    """A text of at most `most` characters, its middle left out where it is longer.

    >>> short("encoder.layer.0", 9)
    'enco…er.0'
    """
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[len(text) - (most - 1 - half) :]}"


def name(text: str) -> str:
    """A layer name as HTML that may break after its dots."""
    return safe(short(text)).replace(".", ".<wbr>")


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def number(value: Any, digits: int = 3) -> str:
    """A figure to a few digits; a dash for what is no finite number.

    >>> number(0.04731), number(0.00004731), number(None)
    ('0.0473', '4.73e-5', '–')
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}".replace("-", "−")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−", 1 if value < 0 else 0)


def plain(value: Any, digits: int = 3) -> str:
    """Like `number`, without zeros that say nothing: for sentences and ticks.

    >>> plain(3.0), plain(0.04), plain(1e-4), plain(400.0)
    ('3', '0.04', '1e-4', '400')
    """
    mantissa, e, exponent = number(value, digits).partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + e + exponent


def signed(value: float, digits: int = 2) -> str:
    """A change: like `number`, with its sign always shown."""
    text = number(value, digits)
    return f"+{text}" if value > 0 else text


def size(value: float) -> str:
    """Bytes in the unit that fits.

    >>> size(452_808), size(14_700_000), size(512)
    ('453 kB', '14.7 MB', '512 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale * 0.9995:
            return f"{plain(value / scale)} {unit}"
    return f"{value:.0f} B"


def percent(part: float, whole: float) -> str:
    """A share.

    >>> percent(1, 3), percent(1, 2000), percent(0, 0)
    ('33 %', '<0.1 %', '0 %')
    """
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "<0.1 %"
    return f"{share:.0f} %" if share >= 9.95 or share == 0 else f"{share:.1f} %"
