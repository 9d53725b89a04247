"""The weights of a model as codes: the one place where grid, blocks and rounding meet."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.measuring.moments import input_moments
from lampq.core.quantizing.coding import Coding, Kept
from lampq.core.quantizing.formed import Formed, formed
from lampq.core.quantizing.low_rank import (
    Compensated,
    Compensation,
    Cut,
    LowRank,
    check_factors,
    compensated,
)
from lampq.core.quantizing.quantizer import Quantized, as_rows, quantize
from lampq.core.quantizing.rounding import InputRounding
from lampq.core.values.batch import BatchLike
from lampq.core.values.blocks import row_block
from lampq.core.values.errors import AdapterError, PlanError, RecordError
from lampq.core.values.factors import FACTOR_BITS
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.plan import Plan
from lampq.core.values.rounding_kinds import NEAREST, form_of
from lampq.core.values.weight_form import WeightForm

Plain: TypeAlias = Quantized | Formed
"""A weight at a width in one piece: codes and scales, or the parts of another form."""
Encoded: TypeAlias = Plain | Compensated
"""A weight at a width: codes and scales, with factors of low rank or without, or the parts of another form."""

AnyModel = TypeVar("AnyModel", bound=Model)


class Encoder(Protocol):
    """How one layer becomes codes."""

    def __call__(self, bits: int, rank: int = 0) -> Encoded:
        """The layer at a width, with factors of a rank where there is one.

        Raises:
            RecordError: There is a rank, and the layer's inputs are not known, or it cannot have it; names the layer.
        """


def encoder(model: Model, name: str, channel_axis: int, widths: Sequence[int] = ()) -> Encoder:
    """A function from a width and a rank to the codes and scales of a layer, by the model's grid and coding.

    Only where the coding has a form of weights are they `Formed`, and `Compensated` where there is a rank.

    Args:
        model: The float model.
        name: A layer.
        channel_axis: Its axis of output channels.
        widths: Those that are going to be asked for: rounding to inputs is cheaper for several at once. Others may be
            asked for all the same.
    """
    coding = model.coding
    learned = (coding.learned or {}).get(name)
    if learned is not None:
        others = encoder(model.with_coding(replace(coding, learned=None)), name, channel_axis, widths)
        return lambda bits, rank=0: learned if (bits, rank) == (learned.bits, 0) else others(bits, rank)
    weight = coding.targets.get(name)
    weight = model.weight(name) if weight is None else weight
    moment = None if coding.moments is None else coding.moments.get(name)
    if coding.form is not None:
        return _Uncompensated(name, functools.partial(_formed, coding.form, weight, channel_axis, moment))
    if moment is None:
        rows = as_rows(weight, channel_axis, coding.block)
        return _Uncompensated(name, lambda bits: quantize(rows, bits, grid=model.grid))
    return _InputEncoder(model, name, weight, channel_axis, moment, widths)


def uniform_encoder(
    model: Model, name: str, channel_axis: int, widths: Sequence[int] = ()
) -> Callable[[int], Quantized]:
    """`encoder` for writers of files that hold codes on a uniform grid and nothing else.

    Raises:
        AdapterError: The coding has a form of weights.
    """
    encode = plain_encoder(model, name, channel_axis, widths)

    def coded(bits: int) -> Quantized:
        encoded = encode(bits)
        if not isinstance(encoded, Quantized):
            raise AdapterError(
                f"{model.format} files have no place for weights in the form {encoded.form.name}"
            )
        return encoded

    return coded


def plain_encoder(
    model: Model, name: str, channel_axis: int, widths: Sequence[int] = ()
) -> Callable[[int], Plain]:
    """`encoder` for writers of files that have no place for factors of low rank."""
    encode = encoder(model, name, channel_axis, widths)

    def plain(bits: int) -> Plain:
        encoded = encode(bits)
        assert not isinstance(encoded, Compensated)  # No rank was asked for.
        return encoded

    return plain


class _Uncompensated:
    """Codes of a layer whose inputs do not count, and which has no factors therefore."""

    def __init__(self, name: str, plain: Callable[[int], Plain]) -> None:
        self._name, self._plain = name, plain

    def __call__(self, bits: int, rank: int = 0) -> Plain:
        if rank:
            raise RecordError(
                f"layer {self._name}: factors of low rank are cut to the layer's inputs, which are not known; give "
                f"data, and leave out what is no product with a matrix"
            )
        return self._plain(bits)


def _formed(
    form: WeightForm, weight: np.ndarray, channel_axis: int, moment: np.ndarray | None, bits: int
) -> Formed:
    return formed(form, weight, channel_axis, bits, moment)


class _InputEncoder:
    """Codes of a layer rounded to its inputs; what was chosen before is not chosen again."""

    def __init__(
        self,
        model: Model,
        name: str,
        weight: np.ndarray,
        channel_axis: int,
        moment: np.ndarray,
        widths: Sequence[int],
    ) -> None:
        self._grid, self._kept = model.grid, model.coding.kept
        self._block = row_block(weight.shape, channel_axis, model.coding.block)
        self._rows = as_rows(weight, channel_axis)
        self._moment = moment
        self._widths = widths
        content = hashlib.blake2b(self._rows.data, digest_size=16)
        content.update(np.ascontiguousarray(moment.diagonal()).data)
        self._key = (name, content.hexdigest(), self._block)
        self._ready: dict[int, Quantized] = {}
        self._compensation: Compensation | None = None
        self._last: tuple[int, Cut] | None = None

    def __call__(self, bits: int, rank: int = 0) -> Quantized | Compensated:
        known = self._known(bits)
        plain = self._chosen(bits) if known is None else known
        return compensated(plain, self._rows, self._factors(plain, rank)) if rank else plain

    def _factors(self, plain: Quantized, rank: int) -> LowRank:
        key = (*self._key, plain.bits, rank)
        outer, inner = ((*key, side, FACTOR_BITS) for side in ("outer", "inner"))
        known = self._kept.get(outer), self._kept.get(inner)
        if known[0] is not None and known[1] is not None:
            return LowRank(outer=known[0], inner=known[1])
        try:
            check_factors(self._rows.shape, self._moment.shape, rank)
        except RecordError as err:
            raise RecordError(f"layer {self._key[0]}: {err}") from err
        factors = self._cut(plain).factors(rank)
        self._kept.put({outer: factors.outer, inner: factors.inner})
        return factors

    def _cut(self, plain: Quantized) -> Cut:
        """The factors of a width, whatever their rank; those of the width before are let go."""
        if self._compensation is None:
            self._compensation = Compensation(self._moment)
        if self._last is None or self._last[0] != plain.bits:
            error = self._rows - plain.dequantized().reshape(self._rows.shape)
            self._last = plain.bits, self._compensation.cut(error)
        return self._last[1]

    def _known(self, bits: int) -> Quantized | None:
        return self._ready.get(bits) or self._kept.get((*self._key, bits))

    def _chosen(self, bits: int) -> Quantized:
        """The codes of a width, chosen together with those of all others that are wanted and not known."""
        wanted = [
            bits,
            *(width for width in dict.fromkeys(self._widths) if width != bits and self._known(width) is None),
        ]
        chosen = InputRounding(self._moment).quantize(self._rows, wanted, grid=self._grid, block=self._block)
        results = dict(zip(wanted, chosen, strict=True))
        self._ready.update(results)
        self._kept.put({(*self._key, width): quantized for width, quantized in results.items()})
        return chosen[0]


def with_rounding(
    model: AnyModel, rounding: str, block: int | None, batch: BatchLike | None, journal: Journal = NOWHERE
) -> AnyModel:
    """The model with the coding asked for; moments that it has already are kept.

    Args:
        model: The float model.
        rounding: One of `ROUNDINGS`, or the name of a form of weights.
        block: See `Coding`.
        batch: Calibration inputs.
        journal: Of the work that codes are chosen in.

    Raises:
        RecordError: The rounding is unknown, or needs data and there is none.
    """
    form = form_of(rounding)
    if rounding == NEAREST or (form is not None and not form.uses_inputs):
        return model.with_coding(Coding(block=block, form=form))
    if model.coding.moments is not None:
        return model.with_coding(replace(model.coding, block=block, form=form))
    if batch is None:
        raise RecordError(
            "rounding to the layers' inputs needs data; give --data, or take --rounding nearest"
        )
    moments = input_moments(model, model.layers(), batch, journal)
    return model.with_coding(
        Coding(block=block, moments=moments, form=form, kept=Kept(journal.within("codes")))
    )


def coded_for(model: AnyModel, plan: Plan, *, factors: bool = False) -> AnyModel:
    """The model with the coding that a plan was made for; writers begin with this.

    Args:
        model: The float model.
        plan: The plan.
        factors: Whether what is written has a place for factors of low rank.

    Raises:
        PlanError: The plan rounds to the layers' inputs, which the model has not seen.
        AdapterError: The format has no such blocks, or no place for the plan's factors of low rank.
    """
    ranked = next((layer.name for layer in plan.layers if layer.rank), None)
    if ranked is not None and not factors:
        raise AdapterError(f"{model.format} files have no place for the low-rank factors of layer {ranked}")
    form = form_of(plan.rounding)
    if plan.rounding == NEAREST or (form is not None and not form.uses_inputs):
        return model.with_coding(Coding(block=plan.block, form=form))
    if model.coding.moments is None:
        raise PlanError(
            "the plan rounds weights to the layers' inputs; give the calibration data, or round to nearest"
        )
    return model.with_coding(replace(model.coding, block=plan.block, form=form))
