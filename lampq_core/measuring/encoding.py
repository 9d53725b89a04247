"""The weights of a model as codes: the one place where grid, blocks and rounding meet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from lampq.core.measuring.model import Model
from lampq.core.measuring.moments import input_moments
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import Quantized, as_rows, quantize
from lampq.core.quantizing.rounding import InputRounding
from lampq.core.values.batch import BatchLike
from lampq.core.values.blocks import row_block
from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.plan import Plan
from lampq.core.values.rounding_kinds import INPUTS, NEAREST, ROUNDINGS

AnyModel = TypeVar("AnyModel", bound=Model)


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


def with_rounding(model: AnyModel, rounding: str, block: int | None, batch: BatchLike | None) -> AnyModel:
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
