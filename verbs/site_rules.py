"""How sites are rounded at every width: kinds and parameters chosen once, before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lampq.core.measuring.model import Model, RoundingModel, rounds_activations
from lampq.core.measuring.reference import Reference, few_samples
from lampq.core.treatments import rule_of
from lampq.core.treatments.choice import best_rule
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.errors import AdapterError
from lampq.core.values.fitted import Fitted
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.measurement import Measurement
from lampq.core.values.option import Option
from lampq.core.values.product import Product
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.site_kinds import ALL

# Samples that kinds and parameters are chosen by, and numbers (values and gradients) that are in memory at a time.
_SAMPLES = 32
_MOST_NUMBERS = 1 << 28


_Choice: TypeAlias = dict[int, tuple[Fitted, float]]
"""Width -> quantizer, and its damage to second order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteRules:
    """Rules of sites. L layers, P products.

    Attributes:
        layers: Names of the layers.
        products: The products whose factors are rounded.
        fitted: Site -> width -> quantizer; layers without an input to round have none.
        losses: Site -> width -> damage to second order, nats.
        table: None: ranges are told by the quantizers.
        per_token: False.
        method: What the provenance calls it.
    """

    layers: tuple[str, ...]
    products: tuple[Product, ...]
    fitted: Mapping[str, Mapping[int, Fitted]]
    losses: Mapping[str, Mapping[int, float]]
    table: None = None
    per_token: bool = False
    method: str = "sites"

    def rule(self, place: int, bits: int) -> ActivationRule | None:
        """How a layer's input, or the right factor of a product (by index), is rounded at a width."""
        return self._rule(self._site(place), bits)

    def left(self, place: int, bits: int) -> ActivationRule | None:
        """How the left factor of a product (by index) is rounded."""
        return self._rule(self.products[place - len(self.layers)].left, bits)

    def _site(self, place: int) -> str:
        count = len(self.layers)
        return self.layers[place] if place < count else self.products[place - count].right

    def _rule(self, site: str, bits: int) -> ActivationRule | None:
        fitted = self.fitted.get(site, {}).get(bits)
        return None if fitted is None else rule_of(fitted)

    def quantizers(self) -> dict[str, tuple[Fitted, ...]]:
        """As profiles hold them."""
        return {site: tuple(some[bits] for bits in sorted(some)) for site, some in self.fitted.items()}

    def available(self, options: Sequence[Option]) -> np.ndarray:
        """Options that products may take, bool, shape (P, J)."""
        return np.array(
            [
                [
                    option.weight_bits in self.fitted[product.left]
                    and option.activation_bits in self.fitted[product.right]
                    for option in options
                ]
                for product in self.products
            ],
            dtype=bool,
        ).reshape(len(self.products), len(options))

    def file_bytes(self, options: Sequence[Option]) -> np.ndarray:
        """Bytes, at most, that quantizers add to what a file says of itself, int64, shape (L + P, J)."""
        table = np.zeros((len(self.layers) + len(self.products), len(options)), dtype=np.int64)
        for place in range(len(table)):
            for column, option in enumerate(options):
                sides = [(self._site(place), option.activation_bits)]
                if place >= len(self.layers):
                    sides.append((self.products[place - len(self.layers)].left, option.weight_bits))
                table[place, column] = sum(self._bytes(site, bits) for site, bits in sides if bits)
        return table

    def _bytes(self, site: str, bits: int) -> int:
        fitted = self.fitted.get(site, {}).get(bits)
        # Quoted as text within the header; with a name to it that is at least as long as what stands there.
        return 0 if fitted is None else len(json.dumps(json.dumps({site + "quantizer": fitted.to_json()})))

    def second_order(self, options: Sequence[Option]) -> np.ndarray:
        """Damage of products to second order, both factors added, nats, shape (P, J)."""
        return np.array(
            [
                [
                    self.losses[product.left].get(option.weight_bits, 0.0)
                    + self.losses[product.right].get(option.activation_bits or 0, 0.0)
                    for option in options
                ]
                for product in self.products
            ]
        ).reshape(len(self.products), len(options))


def site_rules(
    model: Model,
    layers: Sequence[Layer],
    reference: Reference,
    measurement: Measurement,
    *,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> SiteRules:
    """Choose the quantizer of every site at every width, by what it does to the outputs.

    Args:
        model: The float model.
        layers: Its records.
        reference: What it makes of the calibration inputs.
        measurement: Widths, sites and quantizers.
        journal: Keeps every site.
        progress: Told after every site.

    Raises:
        AdapterError: The model's format cannot round sites; says what it can.
        RecordError: None of the quantizers can round a site; names it.
    """
    if not rounds_activations(model):
        raise AdapterError(
            f"{model.path.name}: {model.format} models round layers' inputs to 8 bits on one range and no other sites; "
            f"leave out --sites and --quantizers, or take the PyTorch model"
        )
    products = model.products() if measurement.sites == ALL else ()
    widths: dict[str, set[int]] = {layer.name: set(measurement.act_bits or ()) for layer in layers}
    for product in products:
        widths[product.left] = {bits for bits in measurement.bits if bits > 1}
        widths[product.right] = set(measurement.act_bits or ())
    own = journal.within("sites")
    known = {site: _recalled(own, site) for site in widths}
    done = len(widths) - list(known.values()).count(None)
    for site, seen in _seen(model, reference, [site for site, choice in known.items() if choice is None]):
        rules = {bits: best_rule(seen, bits, measurement.quantizers) for bits in sorted(widths[site])}
        known[site] = {bits: (rule.fitted(), seen.loss(rule)) for bits, rule in rules.items()}
        _keep(own, site, known[site] or {})
        done += 1
        progress("quantizers of sites", done, len(widths))
    # Tables have no input to round.
    chosen = {site: choice for site, choice in known.items() if choice is not None}
    return SiteRules(
        layers=tuple(layer.name for layer in layers),
        products=products,
        fitted={site: {bits: fitted for bits, (fitted, _) in by.items()} for site, by in chosen.items()},
        losses={site: {bits: loss for bits, (_, loss) in by.items()} for site, by in chosen.items()},
    )


def _keep(journal: Journal, site: str, choice: _Choice) -> None:
    """Note what was chosen for a site, as text."""
    text = json.dumps({str(bits): [fitted.to_json(), loss] for bits, (fitted, loss) in choice.items()})
    journal.put(site, text=np.frombuffer(text.encode(), dtype=np.uint8))


def _recalled(journal: Journal, site: str) -> _Choice | None:
    """What was chosen for a site before a kill."""
    kept = journal.get(site, {"text": (None,)})
    if kept is None:
        return None
    choice = json.loads(kept["text"].tobytes())
    return {int(bits): (Fitted.from_json(fitted), float(loss)) for bits, (fitted, loss) in choice.items()}


def _seen(model: RoundingModel, reference: Reference, sites: list[str]) -> Iterator[tuple[str, Seen]]:
    """What calibration has seen, some sites at a time."""
    some = few_samples(model, reference.inputs, _SAMPLES)
    pending = list(sites)
    size = 4
    while pending:
        group, pending = pending[:size], pending[size:]
        seen = model.site_samples(some.inputs, some.readout, group)
        yield from seen.items()
        # Four directions of gradients beside the values.
        largest = max((5 * one.values.size for one in seen.values()), default=1)
        size = max(1, min(64, _MOST_NUMBERS // largest))
