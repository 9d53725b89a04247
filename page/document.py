"""The page as a whole. It loads nothing from anywhere, and a policy in its head forbids that it ever could."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from lampq.page.bits import bits_section
from lampq.page.bytes import bytes_section
from lampq.page.explorer import explorer
from lampq.page.findings import Findings
from lampq.page.header import footer, header, title
from lampq.page.heads import heads_section
from lampq.page.heat import heat_section
from lampq.page.layers import layers_section
from lampq.page.markup import safe
from lampq.page.products import products_section
from lampq.page.rounds import rounds_section
from lampq.page.tradeoff import tradeoff_section

MOST_BYTES = 500_000
"""No page is larger."""

_RESERVE = 20_000


def render(findings: Findings) -> str:
    """The page as HTML, below `MOST_BYTES` in UTF-8."""
    style = _asset("style.css")
    script = "\n".join(_asset(file) for file in ("script.js", "explore.js"))
    above = (
        header(findings)
        + "<main>"
        + explorer(findings)
        + bits_section(findings)
        + tradeoff_section(findings)
        + bytes_section(findings)
        + rounds_section(findings)
        + heads_section(findings)
        + heat_section(findings)
    )
    below = products_section(findings) + "</main>" + footer(findings)
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="lampq">'
        f"<title>{safe(title(findings))} · lampq</title><style>{style}</style></head><body>"
    )
    tail = f"<script>{script}</script></body></html>\n"
    used = sum(len(part.encode()) for part in (head, above, below, tail))
    return head + above + layers_section(findings, MOST_BYTES - _RESERVE - used) + below + tail


def _policy(script: str) -> str:
    """Only this page's own script runs, and no request leaves the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _asset(file: str) -> str:
    return resources.files("lampq.page").joinpath(file).read_text(encoding="utf-8").strip()
