"""What each verb shows to people."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.console.tables import facts, table
from lampq.core.values.plan import Neighbour, Plan
from lampq.verbs.demo import DemoRow
from lampq.verbs.evaluate import Evaluation
from lampq.verbs.inspect import PRODUCT_COLUMNS, Listing, product_rows
from lampq.verbs.task import MetricValue


def listing(contents: Listing) -> None:
    """What `inspect` found."""
    facts(contents.what, contents.facts)
    if contents.heads:
        rows = [
            (h.name, h.role, h.axis, h.mask, h.weight, h.reason or "as asked for") for h in contents.heads
        ]
        table("outputs", ("output", "role", "axis", "mask", "weight", "why"), rows)
    table("layers", contents.columns, contents.rows)
    if contents.products:
        table("products of activations", contents.product_columns, contents.products)
    if contents.skipped:
        table("left as they are", ("name", "reason"), contents.skipped)


def plan(result: Plan) -> None:
    """A plan in model order, with its totals."""
    varied = len({layer.activation_bits for layer in result.layers}) > 1
    quantizers = any(layer.quantizer is not None for layer in result.layers)
    ranks = any(layer.rank for layer in result.layers)
    rows = [
        (
            layer.name,
            layer.kind,
            layer.size,
            layer.weight_bits,
            *((layer.activation_bits or "float",) if varied else ()),
            *((layer.quantizer and layer.quantizer.tag,) if quantizers else ()),
            *((layer.rank,) if ranks else ()),
            layer.payload_bytes,
            layer.predicted_kl,
        )
        for layer in result.layers
    ]
    inputs = (*(("input bits",) if varied else ()), *(("rounded by",) if quantizers else ()))
    inputs = (*inputs, *(("rank",) if ranks else ()))
    table("plan", ("layer", "kind", "weights", "bits", *inputs, "bytes", "predicted KL"), rows)
    if result.products:
        # The sentence is for `inspect`.
        table("products of activations", PRODUCT_COLUMNS[:-1], [row[:-1] for row in product_rows(result)])
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


def _beside(neighbour: Neighbour | None) -> str | None:
    if neighbour is None:
        return None
    return (
        f"{neighbour.total_bytes:,} bytes, {neighbour.average_bits:.4g} bits on average, "
        f"predicted {neighbour.predicted_kl:.4g} nats"
    )


def evaluation(name: str, result: Evaluation) -> None:
    """What `eval` measured."""
    facts(
        name,
        {
            "samples": result.samples,
            "top-1": None if result.top1 is None else f"{result.top1:.2%}",
            **{value.name: _metric(value) for value in result.metrics},
            "damage to the reference (nats)": result.kl,
            "same decisions as the reference": None
            if result.agreement is None
            else f"{result.agreement:.2%}",
            "bytes": result.size_bytes,
            "ms per sample": result.ms_per_sample,
            **{f"note {i + 1}": note for i, note in enumerate(result.notes)},
        },
    )
    if len(result.heads) > 1 or any(head.cosine is not None for head in result.heads):
        columns = ("output", "role", "nats", "same decisions", "cosine", "relative error")
        rows = [(h.name, h.role, h.kl, h.agreement, h.cosine, h.relative_error) for h in result.heads]
        table("outputs", columns, rows)


def _metric(value: MetricValue) -> str:
    own = "" if value.float_value is None else f" (float model: {value.float_value:.5g})"
    return f"{value.value:.5g}{own}"


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
