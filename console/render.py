"""Tables for people, on standard error; standard output is left to scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lampq.core.plan import Neighbour, Plan
from lampq.verbs.demo import DemoRow
from lampq.verbs.evaluate import Evaluation
from lampq.verbs.inspect import Listing


def _console() -> Console:
    console = Console(stderr=True, highlight=False)
    # Where nobody watches (a log, a pipe) there is no reason to fold lines.
    return console if console.is_terminal else Console(stderr=True, highlight=False, width=160)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """A short two-column list."""
    table = Table(
        title=escape(title), show_header=False, box=None, title_justify="left", padding=(0, 2, 0, 0)
    )
    for name, value in values.items():
        if value is not None and value != {} and value != []:
            table.add_row(escape(name), escape(_text(value)))
    _console().print(table)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; numbers are aligned to the right."""
    grid = Table(title=escape(title), title_justify="left")
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        grid.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(_text(value)) for value in row))
    _console().print(grid)


def listing(found: Listing) -> None:
    """What `inspect` found."""
    facts(found.what, found.facts)
    table("layers", found.columns, found.rows)
    if found.skipped:
        table("left as they are", ("name", "reason"), found.skipped)


def plan(result: Plan) -> None:
    """A plan in model order, with its totals."""
    varied = len({layer.activation_bits for layer in result.layers}) > 1
    rows = [
        (
            layer.name,
            layer.kind,
            layer.size,
            layer.weight_bits,
            *((layer.activation_bits or "float",) if varied else ()),
            layer.payload_bytes,
            layer.predicted_kl,
        )
        for layer in result.layers
    ]
    inputs = ("input bits",) if varied else ()
    table("plan", ("layer", "kind", "weights", "bits", *inputs, "bytes", "predicted KL"), rows)
    facts(
        "",
        {
            "mode": result.mode,
            "average bits": round(result.average_bits, 4),
            "model bytes": result.total_bytes,
            "predicted KL (nats)": result.predicted_kl,
            "lower bound (nats)": result.bound,
            "measured KL (nats)": result.measured_kl,
            "next cheaper plan": _beside(result.cheaper),
            "next dearer plan": _beside(result.dearer),
            **{f"note {i + 1}": note for i, note in enumerate(result.notes)},
        },
    )


def _beside(found: Neighbour | None) -> str | None:
    if found is None:
        return None
    return (
        f"{found.total_bytes:,} bytes, {found.average_bits:.4g} bits on average, "
        f"predicted {found.predicted_kl:.4g} nats"
    )


def evaluation(name: str, result: Evaluation) -> None:
    """What `eval` measured."""
    facts(
        name,
        {
            "samples": result.samples,
            "top-1": None if result.top1 is None else f"{result.top1:.2%}",
            "KL to the reference (nats)": result.kl,
            "same class as the reference": None if result.agreement is None else f"{result.agreement:.2%}",
            "bytes": result.size_bytes,
            "ms per sample": result.ms_per_sample,
        },
    )


def demo(rows: Sequence[DemoRow]) -> None:
    """Float against uniform against LampQ at the same size."""
    table(
        "handwritten digits, validation images",
        ("model", "average bits", "weight bytes", "file bytes", "top-1", "KL to float"),
        [
            (row.name, row.average_bits, row.payload_bytes, row.file_bytes, f"{row.top1:.2%}", row.kl)
            for row in rows
        ],
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_text(v) for v in value)
    return str(value)
