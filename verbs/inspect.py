"""What is in a file: a model, a profile or a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampq import adapters
from lampq.adapters.formats import format_named
from lampq.core.allocating.limits import budget_summary
from lampq.core.measuring.model import Model
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.files import read_json
from lampq.core.values.fitted import Fitted
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.layer import Layer
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.convert import read_quantized
from lampq.verbs.formats import judged

# Bytes of a float: single and half precision.
_FLOAT_SIZES = (4, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A table and a few facts above it.

    Attributes:
        what: "model", "quantized model", "profile", "plan" or "reasons".
        facts: Label -> value, in reading order.
        columns: Column headings.
        rows: One tuple per layer, plain values.
        skipped: (name, reason) of weights that stay as they are.
        heads: What the outputs mean.
        products: One tuple per product of two activations, under `product_columns`.
        product_columns: Their column headings.
    """

    what: str
    facts: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    heads: tuple[Head, ...] = ()
    products: tuple[tuple[Any, ...], ...] = ()
    product_columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "what": self.what,
            **self.facts,
            "layers": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "products": [dict(zip(self.product_columns, row, strict=True)) for row in self.products],
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
            "heads": [head.to_json() for head in self.heads],
        }


def inspect(path: str | Path, outputs: Sequence[HeadChoice] = (), **read_options: Any) -> Listing:
    """Describe a model, profile or plan file. `lampq.verbs.why` tells why a plan is as it is.

    Args:
        path: What `lampq.read` takes, or a profile or plan in JSON.
        outputs: How to judge outputs of a model otherwise than inferred.
        **read_options: For a model; see `lampq.read`.

    Raises:
        LampqError: The file cannot be read.
    """
    if str(path).endswith(".json"):
        data = read_json(Path(path), "plan or profile")
        if str(data.get("schema", "")).startswith("lampq.profile/"):
            return _profile(Profile.read(Path(path)))
        return _plan(Plan.read(Path(path)))
    try:
        model = judged(adapters.read(path, **read_options), outputs)
        stored = None if model.layers() else _quantized(path)
        return _model(model) if stored is None else _stored(Path(path), stored)
    except AdapterError:
        stored = _quantized(path)
        if stored is None:
            raise
        return _stored(Path(path), stored)


def _quantized(path: str | Path) -> Plan | None:
    """What a file holds quantized, or None."""
    try:
        return read_quantized(path)
    except LampqError:
        return None


def _model(model: Model) -> Listing:
    layers = model.layers()
    stored = model.stored_bits()
    rows = tuple(
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            layer.size,
            float(layer.weight.whole().std[0]),
            len(layer.shares),
        )
        for layer in layers
    )
    facts: dict[str, Any] = {
        "file": str(model.path),
        "format": model.format,
        "digest": model.digest,
        "inputs": [str(spec) for spec in model.input_specs],
        "quantizable weights": sum(layer.size for layer in layers),
        "coverage": _coverage(model, layers),
        "left alone": dict(Counter(reason for _, reason in model.skipped).most_common()),
        "other bytes": model.rest_bytes(),
    }
    if stored:
        facts["stored widths"] = {name: bits for name, (bits, _) in stored.items()}
    columns = ("name", "kind", "shape", "weights", "std", "shared by")
    return Listing(
        what="model", facts=facts, columns=columns, rows=rows, skipped=model.skipped, heads=model.heads
    )


def _coverage(model: Model, layers: Sequence[Layer]) -> str:
    """How much of the file the layers are, as floats where it does not say what they are stored as."""
    whole, weights = model.file_bytes(), sum(layer.size for layer in layers)
    part = format_named(model.format).weight_bytes(model)
    if part is None:
        part = next((weights * size for size in _FLOAT_SIZES if weights * size <= whole), 0)
    if not part:
        return f"{weights:,} weights in a file of {whole:,} bytes"
    return f"{part / whole:.1%}: {part:,} of {whole:,} bytes are weights that can be quantized"


def _stored(path: Path, plan: Plan) -> Listing:
    """A file whose weights are all quantized already."""
    return Listing(
        what="quantized model",
        facts={
            "file": str(path),
            "quantized weights": sum(layer.size for layer in plan.layers),
            "average bits": plan.average_bits,
            "payload bytes": plan.payload_bytes,
            "other bytes": plan.rest_bytes,
        },
        columns=("name", "kind", "shape", "weights", "weight bits", "activation bits", "bytes"),
        rows=tuple(
            (
                p.name,
                p.kind,
                "x".join(map(str, p.shape)),
                p.size,
                p.weight_bits,
                p.activation_bits,
                p.payload_bytes,
            )
            for p in plan.layers
        ),
    )


def _profile(profile: Profile) -> Listing:
    texts = [profile.option_text(index) for index in range(len(profile.options))]
    table = profile.kl if profile.kl is not None else profile.weight_error
    # A width that the format cannot store has not been measured.
    figures = [
        tuple(value if stored else None for value, stored in zip(*row, strict=True))
        for row in zip(table.tolist(), profile.available.tolist(), strict=True)
    ]
    layers = [(layer.name, layer.kind, layer.size, layer.macs, layer.fisher) for layer in profile.layers]
    products = [(product.name, *product.sites, product.macs) for product in profile.products]
    measured = "KL" if profile.kl is not None else "error"
    facts = {
        "samples": profile.samples,
        "container": profile.container,
        "other bytes": profile.rest_bytes,
        "interactions": profile.interacts,
        "rounding": profile.rounding,
        "rewrites": _rewrites(profile.rewrites),
        "kept float": [layer.name for layer in profile.kept],
        "provenance": dict(profile.provenance),
    }
    at = tuple(f"{measured} at {text.removesuffix(' bits')}" for text in texts)
    return Listing(
        what="profile",
        facts=facts,
        columns=("name", "kind", "weights", "macs", "fisher", *at),
        rows=tuple((*row, *more) for row, more in zip(layers, figures, strict=False)),
        heads=profile.heads,
        products=tuple((*row, *more) for row, more in zip(products, figures[len(layers) :], strict=True)),
        product_columns=("product", "left factor", "right factor", "macs", *at),
    )


def _rewrites(rewrites: Sequence[NormRewrite]) -> list[str]:
    return [f"{rewrite.norm} ({rewrite.kind})" for rewrite in rewrites]


PRODUCT_COLUMNS = ("product", "left factor", "right factor", "predicted KL", "why")
"""What `product_rows` tell."""


def product_rows(plan: Plan) -> tuple[tuple[Any, ...], ...]:
    """How a plan rounds the factors of products, a row for each product."""

    def factor(fitted: Fitted | None) -> str:
        return "float" if fitted is None else f"{fitted.bits} bits {fitted.tag}"

    return tuple(
        (one.name, factor(one.left), factor(one.right), one.predicted_kl, one.why) for one in plan.products
    )


def _plan(plan: Plan) -> Listing:
    quantizers = any(layer.quantizer is not None for layer in plan.layers)
    ranks = any(layer.rank for layer in plan.layers)
    rows = tuple(
        (
            layer.name,
            layer.kind,
            layer.size,
            layer.weight_bits,
            layer.activation_bits,
            *((layer.quantizer and layer.quantizer.tag,) if quantizers else ()),
            *((layer.rank,) if ranks else ()),
            layer.payload_bytes,
            layer.predicted_kl,
            layer.why,
        )
        for layer in plan.layers
    )
    facts = {
        "mode": plan.mode,
        "budget": budget_summary(plan.budget),
        "average bits": plan.average_bits,
        "payload bytes": plan.payload_bytes,
        "total bytes": plan.total_bytes,
        "predicted KL": plan.predicted_kl,
        "bound": plan.bound,
        "gap": plan.gap,
        "measured KL": plan.measured_kl,
        "rounding": plan.rounding,
        "steps of refinement": plan.refine or None,
        "rewrites": _rewrites(plan.rewrites),
        "solver": plan.solver,
        "kept float": [layer.name for layer in plan.kept],
        "notes": list(plan.notes),
        "provenance": dict(plan.provenance),
    }
    inputs = ("activation bits", *(("rounded by",) if quantizers else ()), *(("rank",) if ranks else ()))
    return Listing(
        what="plan",
        facts=facts,
        columns=("name", "kind", "weights", "weight bits", *inputs, "bytes", "predicted KL", "why"),
        rows=rows,
        products=product_rows(plan),
        product_columns=PRODUCT_COLUMNS,
    )
