"""Choices of how weights become codes, beside the width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from lampq.core.quantizing.quantizer import Quantized
from lampq.core.quantizing.shelved_codes import ShelvedCodes
from lampq.core.values.blocks import check_block
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.rounding_kinds import INPUTS, NEAREST
from lampq.core.values.weight_form import WeightForm

# Codes kept, so that search and writing need not choose those of the profile again, and how many of them in memory.
_KEPT_BYTES, _MEMORY_BYTES = 1 << 28, 1 << 26


Key: TypeAlias = tuple[object, ...]
"""What tells codes from others; the last entry is their width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coding:
    """Choices beside the width.

    Attributes:
        block: Weights of a row that share a scale (`core.values.blocks`), or None: one scale per output channel.
        moments: E[x x^T] of the layers' inputs by layer name (`core.measuring.moments`): codes are chosen for the least
            error of the output; layers without one, and all layers where this is None, round to the nearest level.
        targets: Weights that are turned into codes in place of the model's own, by layer name, in the shape of its
            record (`core.measuring.correction`).
        form: The form of the weights where that is none of codes on a uniform grid.
        learned: Codes that are taken as they are, by layer name, at the width they have (`core.measuring.refinement`);
            None where nothing was learned.
        kept: Codes chosen so far.
    """

    block: int | None = None
    moments: Mapping[str, np.ndarray] | None = None
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    form: WeightForm | None = None
    learned: Mapping[str, Quantized] | None = None
    kept: Kept = field(default_factory=lambda: Kept())

    def __post_init__(self) -> None:
        check_block(self.block)
        if self.form is not None and self.block is not None:
            raise RecordError(f"form {self.form.name} has scales of its own; leave --block out")

    def anew(self, journal: Journal = NOWHERE) -> Coding:
        """The same without codes chosen so far: widths coded side by side may round otherwise than one alone."""
        return replace(self, kept=Kept(journal))

    def refuse_form(self, whose: str) -> None:
        """Refuse weights in a form of their own, for formats that have no place for it.

        Args:
            whose: The format, or what has none.

        Raises:
            AdapterError: The coding has a form.
        """
        if self.form is not None:
            raise AdapterError(
                f"{whose} keep codes on a uniform grid alone, not the form {self.form.name}; write a .safetensors file"
            )

    @property
    def rounding(self) -> str:
        """`inputs`, `nearest`, or the form of the weights."""
        if self.form is not None:
            return self.form.name
        return NEAREST if self.moments is None else INPUTS


class Kept:
    """Codes by key: in memory and then on disk until they take too much of it, and in a journal where there is one.

    Args:
        journal: Of the work that they are chosen in.
    """

    def __init__(self, journal: Journal = NOWHERE) -> None:
        self._results: dict[Key, Quantized] = {}
        self._shelved = ShelvedCodes()
        self._bytes = 0
        self._journal = journal

    def get(self, key: Key) -> Quantized | None:
        """The codes of a key, where they are known."""
        return self._results.get(key) or self._shelved.get(key) or self._remembered(key)

    def put(self, results: Mapping[Key, Quantized]) -> None:
        """Keep codes that were chosen side by side: of those that round together a kill loses all or none."""
        for key, result in results.items():
            size = self._bytes + result.codes.nbytes
            if size > _KEPT_BYTES:
                continue
            self._bytes = size
            if size <= _MEMORY_BYTES:
                self._results[key] = result
            else:
                self._shelved.put(key, result)
        self._journal.put_all({repr(key): _arrays(result) for key, result in results.items()})

    def _remembered(self, key: Key) -> Quantized | None:
        kept = self._journal.get(repr(key), _SHAPES)
        if kept is None:
            return None
        codes, scale, error = kept["codes"], kept["scale"], kept["squared_error"]
        step, offset = kept["grid"].tolist()
        return Quantized(
            codes=codes, scale=scale, step=step, offset=offset, bits=int(str(key[-1])), squared_error=error
        )


_SHAPES = {"codes": (None, None), "scale": (None,), "squared_error": (None,), "grid": (2,)}


def _arrays(result: Quantized) -> dict[str, np.ndarray]:
    return {
        "codes": result.codes,
        "scale": result.scale,
        "squared_error": result.squared_error,
        "grid": np.array([result.step, result.offset]),
    }
