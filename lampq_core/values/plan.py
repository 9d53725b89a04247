"""The result: how many bits each layer gets, why, and what it costs. A plan file is enough to reproduce a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lampq.core.values import files, schema
from lampq.core.values.blocks import check_block
from lampq.core.values.errors import LampqError, PlanError
from lampq.core.values.factors import factor_bits
from lampq.core.values.history import Step, history_from_json, step_to_json
from lampq.core.values.messages import described
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.notebook import html_table
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.request import Request
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS, NEAREST
from lampq.core.values.selection import KeptLayer

_SCHEMAS = ("lampq.plan/2", "lampq.plan/1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A plan beside a plan, without its layers.

    Attributes:
        total_bytes: Bytes of the whole model.
        average_bits: Weight width averaged over all weights.
        predicted_kl: Damage predicted for it, nats.
    """

    total_bytes: int
    average_bits: float
    predicted_kl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bits for every layer of a model.

    Attributes:
        layers: Decisions in model order.
        products: Decisions on products of two activations, in model order; those not named stay float.
        rewrites: Normalizations that are rewritten first; fingerprints are of the rewritten layers.
        mode: Name of the score that made it, or `uniform`.
        budget: What was asked for: the limits (`core.values.budget.Budget.to_json`), pins and ties, for example
            {"average_bits": 3.0, "pins": ["head=8"]}.
        request: How it was asked for: all of the request but its limits, which are `budget`; None in plans that were
            read, made by hand, or written before requests were kept.
        container: How codes are stored: `bitplane` or `int8`.
        block: Weights that share a scale (`core.values.blocks`), or None: one scale per output channel.
        rounding: `nearest`, or `inputs`: codes are chosen for the least error of the layers' outputs
            (`core.quantizing.rounding`).
        refine: Steps that the codes of each block are then learned in (`core.measuring.refinement`); 0: they are not.
        rest_bytes: Bytes of the model beside codes and scales: what stays as it is, and what describes the codes.
        kept: Layers that stay float because the user said so; `rest_bytes` has them.
        predicted_kl: Damage predicted for the whole plan, nats, or None where the mode predicts none.
        bound: Lower bound of the same prediction over all plans in the budget, nats, or None.
        measured_kl: Measured damage on the calibration data, nats, or None.
        cheaper: The best smaller plan, all limits but those on bits and bytes kept, or None.
        dearer: The smallest plan that is predicted to lose less, the same limits kept, or None.
        solver: Solver that found it.
        history: What was tried, measured and kept, in order.
        notes: Remarks a reader should see.
        provenance: Model digest, versions, seed, calibration source.
    """

    layers: tuple[PlanLayer, ...]
    mode: str
    budget: Mapping[str, Any]
    container: str
    rest_bytes: int
    kept: tuple[KeptLayer, ...] = ()
    products: tuple[PlanProduct, ...] = ()
    rewrites: tuple[NormRewrite, ...] = ()
    block: int | None = None
    rounding: str = NEAREST
    refine: int = 0
    predicted_kl: float | None = None
    bound: float | None = None
    measured_kl: float | None = None
    cheaper: Neighbour | None = None
    dearer: Neighbour | None = None
    solver: str = ""
    request: Request | None = None
    history: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlanError("a plan needs at least one layer")
        names = [place.name for place in self.places]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PlanError(f"two layers of the plan are called {twice}")
        if self.container not in ("bitplane", "int8"):
            raise PlanError(f"container {self.container!r} is neither bitplane nor int8")
        if self.request is not None and self.request.budget is not None:
            object.__setattr__(self, "request", dataclasses.replace(self.request, budget=None))
        check_block(self.block)
        if not self.rounding:
            raise PlanError("a plan without a rounding")
        if self.refine < 0 or (self.refine and self.rounding not in (INPUTS, CORRECTED)):
            raise PlanError(f"{self.refine} steps of refinement from rounding {self.rounding} cannot be")
        if any(layer.rank for layer in self.layers) and (
            self.refine or self.rounding not in (INPUTS, CORRECTED)
        ):
            raise PlanError(
                "factors of low rank are cut to the layers' inputs: they go with rounding inputs or corrected, and "
                "with codes that are not learned"
            )

    @property
    def places(self) -> tuple[PlanLayer | PlanProduct, ...]:
        """What is decided on: layers, then products."""
        return (*self.layers, *self.products)

    @property
    def widths(self) -> dict[str, int]:
        """Weight width of each layer by name."""
        return {layer.name: layer.weight_bits for layer in self.layers}

    @property
    def average_bits(self) -> float:
        """Weight width averaged over all weights, the codes of factors of low rank counted."""
        bits = sum(
            layer.size * layer.weight_bits + factor_bits(layer.shape, layer.rank) for layer in self.layers
        )
        return bits / sum(layer.size for layer in self.layers)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all codes and scales."""
        return sum(layer.payload_bytes for layer in self.layers)

    @property
    def total_bytes(self) -> int:
        """Payload and everything else in the model."""
        return self.payload_bytes + self.rest_bytes

    @property
    def gap(self) -> float | None:
        """How far, at most, the predicted damage lies above the best possible, as a fraction."""
        if self.predicted_kl is None or self.bound is None:
            return None
        return max(0.0, (self.predicted_kl - self.bound) / max(self.predicted_kl, 1e-300))

    def _repr_html_(self) -> str:
        """For notebooks."""
        facts = {
            "mode": self.mode,
            "average bits": self.average_bits,
            "bytes": self.total_bytes,
            "predicted nats": self.predicted_kl,
            "measured nats": self.measured_kl,
        }
        rows = [
            (layer.name, layer.kind, layer.size, layer.weight_bits, layer.activation_bits, layer.predicted_kl)
            for layer in self.layers
        ]
        return html_table("plan", facts, ("layer", "kind", "weights", "bits", "input", "nats alone"), rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        layers = []
        for layer in self.layers:
            record = dataclasses.asdict(layer)
            record["fingerprint"] = layer.fingerprint.to_text()
            record.pop("folded")
            record.pop("quantizer")
            if not layer.rank:
                record.pop("rank")
            if layer.quantizer is not None:
                record["quantizer"] = layer.quantizer.to_json()
            if layer.folded is not None:
                record["folded"] = layer.folded.to_text()
            record["shape"] = list(layer.shape)
            record["activation_range"] = list(layer.activation_range) if layer.activation_range else None
            layers.append(record)
        rewrites = {"rewrites": [rewrite.to_json() for rewrite in self.rewrites]} if self.rewrites else {}
        return {
            "schema": _SCHEMAS[0],
            "mode": self.mode,
            "budget": dict(self.budget),
            "request": None if self.request is None else self.request.to_json(),
            "average_bits": self.average_bits,
            "payload_bytes": self.payload_bytes,
            "rest_bytes": self.rest_bytes,
            "container": self.container,
            "block": self.block,
            "rounding": self.rounding,
            "refine": self.refine,
            "predicted_kl": self.predicted_kl,
            "bound": self.bound,
            "gap": self.gap,
            "measured_kl": self.measured_kl,
            "cheaper": None if self.cheaper is None else dataclasses.asdict(self.cheaper),
            "dearer": None if self.dearer is None else dataclasses.asdict(self.dearer),
            "solver": self.solver,
            "history": [step_to_json(step) for step in self.history],
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "kept": [layer.to_json() for layer in self.kept],
            "layers": layers,
            "products": [product.to_json() for product in self.products],
            **rewrites,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; totals are recomputed and must agree with the file.

        Raises:
            PlanError: A field is missing, impossible, or contradicts another.
        """
        try:
            schema.check_version(data.get("schema"), *_SCHEMAS)
            schema.check(data, "plan")
            plan = cls(
                layers=tuple(PlanLayer.from_json(layer) for layer in data["layers"]),
                mode=str(data["mode"]),
                budget={str(key): value for key, value in data["budget"].items()},
                request=None if data.get("request") is None else Request.from_json(data["request"]),
                container=str(data["container"]),
                block=None if data.get("block") is None else int(data["block"]),
                rounding=str(data.get("rounding", NEAREST)),
                refine=int(data.get("refine", 0)),
                rest_bytes=int(data["rest_bytes"]),
                kept=tuple(KeptLayer.from_json(layer) for layer in data.get("kept", ())),
                products=tuple(PlanProduct.from_json(product) for product in data.get("products", ())),
                rewrites=tuple(NormRewrite.from_json(rewrite) for rewrite in data.get("rewrites", ())),
                predicted_kl=_number(data.get("predicted_kl")),
                bound=_number(data.get("bound")),
                measured_kl=_number(data.get("measured_kl")),
                cheaper=_neighbour(data.get("cheaper")),
                dearer=_neighbour(data.get("dearer")),
                solver=str(data.get("solver", "")),
                history=history_from_json(data.get("history", ())),
                notes=tuple(str(note) for note in data.get("notes", ())),
                provenance=dict(data.get("provenance", {})),
            )
            stated = int(data.get("payload_bytes", plan.payload_bytes))
        except PlanError:
            raise
        except LampqError as err:
            raise PlanError(str(err)) from err
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise PlanError(f"malformed ({described(err)})") from err
        if stated != plan.payload_bytes:
            raise PlanError(f"payload_bytes says {stated}, its layers add up to {plan.payload_bytes}")
        return plan

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the plan as JSON.

        Raises:
            OutputExistsError: The file exists and `force` is false.
        """
        path = Path(path)
        refuse_clashes([Output(path=path)], force=force)
        files.write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: It is missing, damaged or no plan.
        """
        try:
            return cls.from_json(files.read_json(Path(path), "plan", bounded=True))
        except PlanError as err:
            raise PlanError(f"plan {path}: {err}") from err
        except LampqError as err:
            raise PlanError(str(err)) from err


def _neighbour(data: Mapping[str, Any] | None) -> Neighbour | None:
    if data is None:
        return None
    return Neighbour(
        total_bytes=int(data["total_bytes"]),
        average_bits=float(data["average_bits"]),
        predicted_kl=float(data["predicted_kl"]),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
