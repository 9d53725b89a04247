"""All that allocation needs to know of a model: records, error table, measured damage. No model, no framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lampq.core.values import profile_files
from lampq.core.values.blocks import check_block
from lampq.core.values.errors import RecordError
from lampq.core.values.factors import factor_bits
from lampq.core.values.fitted import Fitted
from lampq.core.values.head import Head
from lampq.core.values.layer import LARGEST_COUNT, Layer
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.notebook import html_table
from lampq.core.values.option import Option
from lampq.core.values.product import Product
from lampq.core.values.rounding_kinds import CORRECTED, NEAREST
from lampq.core.values.selection import KeptLayer
from lampq.core.values.shard import Shard
from lampq.core.values.tables import (
    LAYERS,
    OPTIONS,
    SAMPLES,
    Table,
    TableKind,
    check_name,
    known_tables,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Measurements of one model. L layers, J options, S calibration samples.

    Attributes:
        layers: L records in the order the model uses them.
        options: J choices, the same for every place, increasing in weight bits.
        rest_bytes: Bytes of the model that no plan changes. What a plan adds beside codes and scales is in tables.
        tables: Arrays by name (`core.values.tables`). `weight_error` (||W_hat - W||^2) and `payload_bytes` (codes and
            scales; -1 where the format cannot store the layer that way, which rules the option out) are always there.
            `overhead_bytes`, `shared_bytes` and `shares` are those of `core.values.overhead`.
        container: How codes are stored: `bitplane` (exactly b bits) or `int8`.
        block: Weights that share a scale (`core.values.blocks`), or None: one scale per output channel.
        rounding: `nearest`, or `inputs`: codes are chosen for the least error of the layers' outputs
            (`core.quantizing.rounding`).
        per_token: Inputs are rounded on a grid of each token's own, which needs no ranges.
        products: Products of two activations whose factors are rounded. They are places like layers and come after them
            on the axis of tables that layers have: L counts both.
        rewrites: Normalizations that were rewritten before anything was measured.
        quantizers: Site (a layer by its name, a factor by its own) -> how it is rounded at each width; empty where
            ranges and tokens tell.
        heads: The outputs that were judged, and how.
        kept: Layers that stay float because the user said so; `rest_bytes` has them.
        samples: Calibration samples behind the measurements, 0 without data.
        shard: Which part of the samples this is, or None: all.
        provenance: Model digest and name, versions, seed, calibration source.
    """

    layers: tuple[Layer, ...]
    options: tuple[Option, ...]
    rest_bytes: int
    tables: Mapping[str, Table]
    container: str = "bitplane"
    block: int | None = None
    rounding: str = NEAREST
    per_token: bool = False
    products: tuple[Product, ...] = ()
    quantizers: Mapping[str, tuple[Fitted, ...]] = field(default_factory=dict)
    rewrites: tuple[NormRewrite, ...] = ()
    heads: tuple[Head, ...] = ()
    kept: tuple[KeptLayer, ...] = ()
    samples: int = 0
    shard: Shard | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise RecordError("a profile needs at least one layer")
        names = [place.name for place in self.places]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RecordError(f"profile: two layers are called {twice}")
        if not self.options or list(self.options) != sorted(set(self.options)):
            raise RecordError("profile: options must be distinct and increasing")
        check_block(self.block)
        if not self.rounding or self.rounding == CORRECTED:
            raise RecordError(
                f"rounding {self.rounding!r} is none of profiles; corrections are of whole plans"
            )
        if self.rest_bytes < 0 or self.samples < 0:
            raise RecordError("profile: rest_bytes and samples cannot be negative")
        lengths = {LAYERS: len(self.places), OPTIONS: len(self.options), SAMPLES: self.samples}
        for name in ("weight_error", "payload_bytes"):
            if name not in self.tables:
                raise RecordError(f"profile: {name} is missing")
        tables = {name: table.checked(name, lengths, names) for name, table in self.tables.items()}
        object.__setattr__(self, "tables", tables)
        for name in ("payload_bytes", "overhead_bytes"):
            array = self.array(name)
            if array is not None and (array > LARGEST_COUNT).any():
                place = names[int(np.argwhere(array > LARGEST_COUNT)[0, 0])]
                raise RecordError(f"profile: {name} is impossibly large at layer {place}; it is damaged")
        self._check_shared()
        if not self.available.any(axis=1).all():
            stuck = names[int(np.argmin(self.available.any(axis=1)))]
            raise RecordError(f"profile: none of the widths can be stored for layer {stuck}; profile others")
        ends = self.activation_range
        if ends is not None and (np.diff(ends) < 0).any():
            raise RecordError("profile: an activation_range ends before it begins")
        if "logit_delta" in tables and "logits" not in tables:
            raise RecordError("profile: logit differences need the logits they differ from")

    def _check_shared(self) -> None:
        sizes, shares = self.array("shared_bytes"), self.array("shares")
        if (sizes is None) != (shares is None):
            raise RecordError("profile: shared_bytes and shares go together")
        if sizes is None or shares is None:
            return
        if shares.shape[2] != len(sizes):
            raise RecordError(
                f"profile: shares tells of {shares.shape[2]} parts, shared_bytes of {len(sizes)}"
            )
        if (sizes > LARGEST_COUNT).any():
            raise RecordError("profile: shared_bytes is impossibly large; it is damaged")

    @property
    def places(self) -> tuple[Layer | Product, ...]:
        """What options are chosen for: layers, then products."""
        return (*self.layers, *self.products)

    def quantizer(self, site: str, bits: int | None) -> Fitted | None:
        """How a site is rounded at a width; None where ranges and tokens tell."""
        return next((fitted for fitted in self.quantizers.get(site, ()) if fitted.bits == bits), None)

    def _repr_html_(self) -> str:
        """For notebooks."""
        damage = self.array("kl")
        facts = {"samples": self.samples, "rounding": self.rounding, "container": self.container}
        facts["damage of layers at"] = ", ".join(option.to_text() for option in self.options)
        rows = [
            (layer.name, layer.kind, layer.size, *([] if damage is None else damage[index].tolist()))
            for index, layer in enumerate(self.layers)
        ]
        widths = () if damage is None else tuple(option.to_text() for option in self.options)
        return html_table("profile", facts, ("layer", "kind", "weights", *widths), rows)

    def array(self, name: str) -> np.ndarray | None:
        """The numbers of a table, or None where the profile has no such table."""
        table = self.tables.get(name)
        return None if table is None else table.array

    @property
    def weight_error(self) -> np.ndarray:
        """||W_hat - W||^2 per layer and option, float64, shape (L, J)."""
        return self.tables["weight_error"].array

    @property
    def payload_bytes(self) -> np.ndarray:
        """Stored bytes (codes and scales) per layer and option, int64, shape (L, J); -1 where there is no such form."""
        return self.tables["payload_bytes"].array

    @property
    def stored_bytes(self) -> np.ndarray:
        """Bytes that an option of a layer takes for itself, payload and overhead, int64, shape (L, J); -1 where there
        is no such form.
        """
        overhead = self.array("overhead_bytes")
        return self.payload_bytes if overhead is None else self.payload_bytes + overhead * self.available

    def shared_bytes(self, allowed: np.ndarray) -> int:
        """Bytes of what layers share, of all that some allowed option needs: once each.

        Args:
            allowed: Bool, shape (L, J).
        """
        sizes, shares = self.array("shared_bytes"), self.array("shares")
        return 0 if sizes is None or shares is None else int(sizes @ shares[allowed].any(axis=0))

    @property
    def kl(self) -> np.ndarray | None:
        """Measured damage of quantizing one layer alone, mean nats, shape (L, J), or None."""
        return self.array("kl")

    @property
    def joint_fisher(self) -> np.ndarray | None:
        """Second-order damage of rounding weights and input of one layer together, E_n[(sum g dY)^2] / 2 with
        dY = W_hat X_hat - W X, nats, shape (L, J), or None.
        """
        return self.array("joint_fisher")

    @property
    def activation_range(self) -> np.ndarray | None:
        """Ends of the grid that a layer's input is rounded on, float64, shape (L, J, 2), or None: the smallest and
        largest input in calibration.
        """
        return self.array("activation_range")

    @property
    def interacts(self) -> bool:
        """Whether it knows how the errors of layers act together (`core.measuring.interaction`)."""
        return "gram" in self.tables or "logit_delta" in self.tables

    def with_tables(self, **arrays: np.ndarray | None) -> Profile:
        """The same with some tables replaced, added, or left out where they are None.

        Raises:
            RecordError: No table is so called, or one does not fit.
        """
        others = {name: table for name, table in self.tables.items() if name not in arrays}
        return dataclasses.replace(self, tables=others | known_tables(**arrays))

    def with_table(self, name: str, array: np.ndarray, kind: TableKind) -> Profile:
        """The same with a table of one's own, such as what another score measures: written, read, merged as all are.

        Args:
            name: What it is called; letters, digits and underscores.
            array: The numbers.
            kind: Their axes and unit, and how parts of the data merge.

        Raises:
            RecordError: The name is that of a table of another kind, or the numbers do not fit the axes.
        """
        check_name(name, kind)
        return dataclasses.replace(
            self, tables={**self.tables, name: Table(array=np.asarray(array), kind=kind)}
        )

    @property
    def available(self) -> np.ndarray:
        """Which options the format can store, bool, shape (L, J)."""
        return self.payload_bytes >= 0

    @property
    def sizes(self) -> np.ndarray:
        """Weights per place, int64, shape (L,)."""
        return np.array([place.size for place in self.places], dtype=np.int64)

    @property
    def weight_bits(self) -> np.ndarray:
        """Weight width of each option, int64, shape (J,)."""
        return np.array([option.weight_bits for option in self.options], dtype=np.int64)

    @property
    def code_bits(self) -> np.ndarray:
        """Bits of all weights of a place, and of its factors of low rank, int64, shape (L, J)."""
        factors = [
            [factor_bits(layer.shape, option.rank) for option in self.options] for layer in self.layers
        ]
        codes = self.sizes[:, None] * self.weight_bits[None, :]
        codes[: len(factors)] += np.array(factors, dtype=np.int64)
        return codes

    def option_text(self, index: int) -> str:
        """How people call an option: `4 bits` where all inputs have one width and there are no ranks, else `w4a8`."""
        option = self.options[index]
        if len({(other.input_bits, other.rank) for other in self.options}) == 1:
            return f"{option.weight_bits} bits"
        return option.to_text()

    def total_bytes(self, choice: np.ndarray) -> int:
        """Bytes of the whole model under a plan, option indices of shape (L,)."""
        return self.payload_of(choice) + self.rest_of(choice)

    def payload_of(self, choice: np.ndarray) -> int:
        """Bytes of codes and scales under a plan, option indices of shape (L,)."""
        return int(self.payload_bytes[np.arange(len(choice)), choice].sum())

    def rest_of(self, choice: np.ndarray) -> int:
        """Bytes of the model under a plan, option indices of shape (L,), beside codes and scales."""
        chosen = np.zeros(self.payload_bytes.shape, dtype=bool)
        chosen[np.arange(len(choice)), choice] = True
        own = int(self.stored_bytes[chosen].sum()) - self.payload_of(choice)
        return self.rest_bytes + own + self.shared_bytes(chosen)

    def average_bits(self, choice: np.ndarray) -> float:
        """Weight width of a plan, option indices of shape (L,), averaged over all weights, the codes of factors of low
        rank counted.
        """
        return int(self.code_bits[np.arange(len(choice)), choice].sum()) / int(self.sizes.sum())

    def narrowed(self, columns: Sequence[int]) -> Profile:
        """The same with some of the options, by index, in rising order."""
        return dataclasses.replace(
            self,
            options=tuple(self.options[column] for column in columns),
            tables={name: table.take(OPTIONS, columns) for name, table in self.tables.items()},
        )

    def part(self, layers: Sequence[int]) -> Profile:
        """The same with some of the layers, by index, in rising order, and no products."""
        return dataclasses.replace(
            self,
            layers=tuple(self.layers[index] for index in layers),
            products=(),
            tables={name: table.take(LAYERS, layers) for name, table in self.tables.items()},
        )

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write `path` (JSON) and, beside it, the arrays in a file named by its content: `NAME.0123456789ab.npz`.

        Whoever reads while this goes on, or after it was killed, has the old profile or the new one. The arrays of
        the old one are removed last.

        Raises:
            OutputExistsError: The file exists and `force` is false.
            OutputError: It cannot be written, or its name does not end in .json.
        """
        profile_files.write(self, Path(path), force=force)

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile and its arrays, of this or an earlier version.

        Raises:
            RecordError: Either file is missing, damaged, or the two do not belong together.
        """
        return profile_files.read(Path(path), cls)
