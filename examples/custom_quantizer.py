"""A quantizer of activations of one's own in one file: squares of equal steps, dense near zero, as attention needs.

Value = scale * (k / last)^2, for the probabilities behind a softmax. Needs lampq[torch]. Writes into the
current folder: python examples/custom_quantizer.py

`QUANTIZERS.add` makes it known in the running program: sites choose it where it loses least, plans and files hold it as
a tag and numbers. To have it everywhere, announce it in the pyproject.toml of the package it is in:

    [project.entry-points."lampq.quantizers"]
    squares = "your_package.custom_quantizer:SQUARES"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lampq
from lampq.adapters.torch import read
from lampq.core.treatments import QUANTIZERS
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import LAST
from lampq.core.values.fitted import Fitted

TAG = "squares"


@dataclass(frozen=True, kw_only=True)
class SquareGrid:
    """An `lampq.core.values.activation_rule.ActivationRule`."""

    bits: int
    scale: float

    def apply(self, values, axes=LAST, xp=np):
        """The nearest square, the same in NumPy and PyTorch."""
        last = (1 << self.bits) - 1
        codes = xp.clip(xp.round(xp.sqrt(xp.clip(values / self.scale, 0, 1)) * last), 0, last)
        return (codes / last) ** 2 * self.scale

    def fitted(self) -> Fitted:
        """As files hold it."""
        return Fitted(tag=TAG, bits=self.bits, parameters={"scale": self.scale})


def candidates(seen: Seen, bits: int) -> Iterator[SquareGrid]:
    """Scales that are worth trying."""
    for share in (1.0, 0.8, 0.6, 0.4):
        yield SquareGrid(bits=bits, scale=share * seen.high)


def load(fitted: Fitted) -> SquareGrid:
    """From a file."""
    return SquareGrid(bits=fitted.bits, scale=fitted.number("scale"))


SQUARES = Quantizer(name=TAG, roles=frozenset([PROBABILITIES]), candidates=candidates, load=load)


class TinyViT(nn.Module):
    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.head = nn.Linear(width, classes)
        # Sharp attention, as trained models have it.
        nn.init.normal_(self.block.self_attn.in_proj_weight, std=0.6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.patch_embed(images).flatten(2).transpose(1, 2)).mean(dim=1))


def main() -> None:
    QUANTIZERS.add(SQUARES)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = read(TinyViT().eval(), input_shape=(3, 32, 32))
    images = np.random.default_rng(0).normal(size=(48, 3, 32, 32)).astype(np.float32)
    for own in (False, True):
        names = ("uniform", TAG) if own else ("uniform",)
        profile = lampq.profile(
            model, images, bits=(8,), act_bits=(4,), sites="all", quantizers=names, fisher_draws=0
        )
        plan = lampq.plan(profile, average_bits=8)
        plan.write(Path("plan.json"), force=True)
        plan = lampq.Plan.read(Path("plan.json"))
        context = next(product for product in plan.products if product.product.name.endswith("@context"))
        damage = lampq.evaluate(lampq.fake_quantize(model, plan), images, reference=model).kl
        print(f"{', '.join(names)}: attention is {context.left.tag}, {damage:.5f} nats")


if __name__ == "__main__":
    main()
