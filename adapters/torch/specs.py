"""Inputs and outputs of a module, described by runs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from lampq.adapters.torch.chunks import samples_of
from lampq.adapters.torch.descriptions import producer
from lampq.adapters.torch.fronts import Front
from lampq.adapters.torch.inputs import Inputs
from lampq.adapters.torch.signature import IDS, MASK, Signature
from lampq.adapters.torch.tape import Named, Tape
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.output_spec import OutputSpec

# Inputs of text models that data may bring or leave out.
_OF_TOKENS = (MASK, "token_type_ids")
Shapes = Mapping[str, torch.Size]
Run = Callable[[Inputs], Named]


@dataclass(frozen=True, slots=True, kw_only=True)
class Specs:
    """What goes into a module and what comes out.

    Attributes:
        inputs: The inputs that are fed.
        optional: Further ones that data may bring.
        outputs: The outputs, and the tensors that stand for some of them.
        unfit: Output -> why it cannot be judged: it has not one row per sample.
    """

    inputs: tuple[InputSpec, ...]
    optional: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    unfit: Mapping[str, str]


def describe(
    tape: Tape,
    example: Inputs,
    outputs: Named,
    *,
    grown: tuple[Inputs, Named] | None,
    more: Named | None,
    fronts: tuple[Front, ...],
    signature: Signature,
    fixed_batch: int | None,
) -> Specs:
    """Describe a module.

    Args:
        tape: Of the example.
        example: Inputs.
        outputs: What the module makes of them.
        grown: Larger samples that it takes as well and what it makes of those, if any.
        more: What it makes of one sample more, if it takes any number.
        fronts: Tensors that stand for outputs.
        signature: What the module takes.
        fixed_batch: The only number of samples, or None.
    """
    samples = samples_of(example)
    larger, further = ({}, {}) if grown is None else grown
    stands_for = {front.name: front.stands_for for front in fronts}
    specs, unfit = [], {}
    for name, tensor in outputs.items():
        objection = _objection(tensor, samples, None if more is None else more.get(name))
        if objection:
            unfit[name] = objection
        shape = _shape(tensor, further.get(name), fixed_batch)
        if fixed_batch == 1 and tensor.shape[:1] != (1,):
            shape = (1, *tensor.shape)
        operator, axis = producer(tape, tape.outputs[name])
        specs.append(
            OutputSpec(
                name=name,
                shape=None if name in unfit else shape,
                dtype=str(tensor.dtype).removeprefix("torch."),
                producer=operator,
                axis=axis,
                stands_for=stands_for.get(name, ()),
            )
        )
    fed = tuple(
        InputSpec(name=name, shape=_shape(tensor, larger.get(name), fixed_batch), dtype=_dtype(tensor))
        for name, tensor in example.items()
    )
    return Specs(inputs=fed, optional=_optional(fed, signature, example), outputs=tuple(specs), unfit=unfit)


def _shape(one: torch.Tensor, other: torch.Tensor | None, batch: int | None) -> tuple[int | None, ...]:
    sides = tuple(one.shape[1:])
    if other is None or other.dim() != one.dim():
        return (batch, *sides)
    return (batch, *(a if a == b else None for a, b in zip(sides, other.shape[1:], strict=True)))


def _objection(tensor: torch.Tensor, samples: int, more: torch.Tensor | None) -> str:
    if not tensor.dim() or len(tensor) != samples:
        return (
            "" if samples == 1 else f"has {len(tensor) if tensor.dim() else 'no'} rows for {samples} samples"
        )
    if more is not None and more.dim() == tensor.dim() and more.shape[1:] != tensor.shape[1:]:
        return "its shape depends on the number of samples"
    if more is not None and len(more) != samples + 1:
        return "has the same rows for any number of samples"
    return ""


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _optional(fed: tuple[InputSpec, ...], signature: Signature, example: Inputs) -> tuple[InputSpec, ...]:
    tokens = next((spec for spec in fed if spec.name == IDS), None)
    if tokens is None:
        return ()
    return tuple(
        InputSpec(name=name, shape=tokens.shape, dtype="int64", optional=True)
        for name in _OF_TOKENS
        if name in signature.names and name not in example
    )
