"""How the weights of a model become codes: the one place where grid, blocks and rounding meet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lampq.core.blocks import check_block, row_block
from lampq.core.errors import PlanError, RecordError
from lampq.core.moments import input_moments
from lampq.core.quantizer import Quantized, as_rows, quantize
from lampq.core.rounding import InputRounding

if TYPE_CHECKING:
    from lampq.core.model import Model
    from lampq.core.plan import Plan

AnyModel = TypeVar("AnyModel", bound="Model")
NEAREST, INPUTS = "nearest", "inputs"
ROUNDINGS = (NEAREST, INPUTS)

# Codes kept, so that search and writing need not choose those of the profile again.
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coding:
    """Choices beside the width.

    Attributes:
        block: Weights of a row that share a scale (`core.blocks`), or None: one scale per output channel.
        moments: E[x x^T] of the layers' inputs by layer name (`core.moments`): codes are chosen for the least
            error of the output; layers without one, and all layers where this is None, round to the nearest level.
        kept: Codes chosen so far, which only save time.
    """

    block: int | None = None
    moments: Mapping[str, np.ndarray] | None = None
    kept: _Kept = field(default_factory=lambda: _Kept())

    def __post_init__(self) -> None:
        check_block(self.block)

    @property
    def rounding(self) -> str:
        """`inputs` or `nearest`."""
        return NEAREST if self.moments is None else INPUTS


class _Kept:
    """Results by key, until they take too much memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Quantized] = {}
        self._bytes = 0

    def get(self, key: tuple[object, ...], make: Callable[[], Quantized]) -> Quantized:
        """The result of a key, made where it is not known."""
        found = self._found.get(key)
        if found is None:
            found = make()
            if self._bytes + found.codes.nbytes <= _KEPT_BYTES:
                self._found[key] = found
                self._bytes += found.codes.nbytes
        return found


def encoder(model: Model, name: str, channel_axis: int) -> Callable[[int], Quantized]:
    """A function from a width to the codes and scales of a layer, by the model's grid and coding.

    Args:
        model: The float model.
        name: A layer.
        channel_axis: Its axis of output channels.
    """
    coding = model.coding
    weight = model.weight(name)
    moment = None if coding.moments is None else coding.moments.get(name)
    if moment is None:
        rows = as_rows(weight, channel_axis, coding.block)
        return lambda bits: quantize(rows, bits, grid=model.grid)
    whole, block = as_rows(weight, channel_axis), row_block(weight.shape, channel_axis, coding.block)
    rounding = InputRounding(moment)
    digest = hashlib.blake2b(whole.data, digest_size=16).hexdigest()

    def encode(bits: int) -> Quantized:
        def choose() -> Quantized:
            return rounding.quantize(whole, bits, grid=model.grid, block=block)

        return coding.kept.get((name, digest, bits, block), choose)

    return encode


def with_rounding(model: AnyModel, rounding: str, block: int | None, batch: np.ndarray | None) -> AnyModel:
    """The model with the coding asked for; moments that it has already are kept.

    Raises:
        RecordError: The rounding is unknown, or needs data and there is none.
    """
    if rounding not in ROUNDINGS:
        raise RecordError(f"rounding {rounding!r} is none of {', '.join(ROUNDINGS)}")
    if rounding == NEAREST:
        return model.with_coding(Coding(block=block))
    if model.coding.moments is not None:
        return model.with_coding(replace(model.coding, block=block))
    if batch is None:
        raise RecordError(
            "rounding to the layers' inputs needs data; give --data, or take --rounding nearest"
        )
    return model.with_coding(Coding(block=block, moments=input_moments(model, model.layers(), batch)))


def coded_for(model: AnyModel, plan: Plan) -> AnyModel:
    """The model with the coding that a plan was made for; writers begin with this.

    Raises:
        PlanError: The plan rounds to the layers' inputs, which the model has not seen.
        AdapterError: The format has no such blocks.
    """
    if plan.rounding == INPUTS and model.coding.moments is None:
        raise PlanError(
            "the plan rounds weights to the layers' inputs; give the calibration data, or round to nearest"
        )
    if plan.rounding == INPUTS:
        return model.with_coding(replace(model.coding, block=plan.block))
    return model.with_coding(Coding(block=plan.block))
