"""Blocks of a forward pass: stretches of its tape with the layers of one module, such as `blocks.3`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from lampq.adapters.torch.runtime import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Operators from `begin` to `end` (exclusive), and the layers that are used there and nowhere else."""

    begin: int
    end: int
    layers: tuple[str, ...]


def blocks(recording: Recording, layers: Mapping[str, str]) -> tuple[Block, ...]:
    """The blocks of a tape, in order; together they are all of it.

    Args:
        recording: The tape and where it uses weights.
        layers: Parameter -> layer name.
    """
    tape = recording.tape
    possible = tape.cuts()
    starts, previous = [0], None
    for use, _ in recording.uses:
        module = block_of(use.module or use.weight)
        # Where its weight is first rearranged, which may be before it is multiplied.
        cut = tape.first_use(use.weight)
        while not possible[cut]:
            cut -= 1
        if module != previous and cut > starts[-1]:
            starts.append(cut)
        previous = module
    ends = [*starts, len(tape.operations)]
    times = Counter(use.weight for use, _ in recording.uses)
    return tuple(
        Block(
            begin=begin,
            end=end,
            layers=tuple(
                layers[use.weight]
                for use, _ in recording.uses
                if begin <= tape.first_use(use.weight)
                and use.operation < end
                and use.form != "lookup"
                and times[use.weight] == 1
                and use.weight in layers
            ),
        )
        for begin, end in pairwise(ends)
    )


def block_of(module: str) -> str:
    """The path of the innermost numbered module around a module, or its own.

    >>> block_of("vit.blocks.3.attn.qkv"), block_of("blocks.0.mlp.2"), block_of("head")
    ('vit.blocks.3', 'blocks.0', 'head')
    """
    parts = module.split(".")
    numbered = [index for index, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else module
