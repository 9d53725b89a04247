"""A form of weights of one's own: codes on a uniform grid, and two thin factors that give back what rounding took.

W ~ Q(W) + B A, after Jiang et al. (2025), AIQViT, arXiv:2502.04628, in closed form. Everything else is lampq's: what a
width of this form does is measured, budgets count its bytes, plans name it, files hold it. At equal bytes bits alone
are better here, and as good on a trained network (benchmarks/results/low_rank.md). Needs lampq[torch].

In a package of its own, an entry point makes it known to the command line as well:

    [project.entry-points."lampq.forms"]
    low_rank = "your_package.custom_weights:LOW_RANK"

Writes into the current folder: python examples/custom_weights.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import lampq
from lampq.adapters.torch import load_quantized, read
from lampq.core.quantizing.low_rank import LowRank, compensate
from lampq.core.quantizing.quantizer import Quantized, quantize
from lampq.core.values.packing import fields, pack, payload_bytes, unpack
from lampq.core.values.weight_form import WEIGHT_FORMS, WeightForm

RANK, FACTOR_BITS, SAMPLES = 2, 8, 64


def encode(rows, bits, moment):
    """Codes of b bits, and factors of 8 bits for the error that these leave in the layer's output."""
    coded = quantize(rows, bits, grid="mid_tread")
    low_rank = compensate(rows - coded.dequantized(), moment, rank(*rows.shape))
    planes = {f"plane {place}": plane for place, plane in enumerate(pack(coded.codes, bits))}
    factors = {
        f"{name} {what}": array
        for name, factor in (("outer", low_rank.outer), ("inner", low_rank.inner))
        for what, array in (("codes", factor.codes), ("scale", factor.scale))
    }
    return {"scale": coded.scale, **planes, **factors}


def decode(parts):
    """The values that the arrays stand for."""
    outer, inner = (stored(parts[f"{name} codes"], parts[f"{name} scale"], 8) for name in ("outer", "inner"))
    shape = (outer.codes.shape[1], inner.codes.shape[1])
    planes = [array for name, array in parts.items() if name.startswith("plane")]
    bits = sum(plane.nbytes for plane in planes) // payload_bytes(shape[0] * shape[1], 1)
    codes = unpack(planes, bits, shape[0] * shape[1]).reshape(shape)
    return stored(codes, parts["scale"], bits).dequantized() + LowRank(outer=outer, inner=inner).product()


def parts(outputs, inputs, bits):
    """Shape and type of every array that is stored."""
    count, r = outputs * inputs, rank(outputs, inputs)
    planes = {
        f"plane {place}": ((payload_bytes(count, part.width),), "uint8")
        for place, part in enumerate(fields(bits))
    }
    outer = {"outer codes": ((r, outputs), "uint8"), "outer scale": ((r,), "float32")}
    inner = {"inner codes": ((r, inputs), "uint8"), "inner scale": ((r,), "float32")}
    return {"scale": ((outputs,), "float32"), **planes, **outer, **inner}


def rank(outputs, inputs):
    """Columns of B."""
    return min(RANK, outputs, inputs)


def stored(codes, scale, bits):
    """Codes on the grid in whose middle zero is."""
    error = np.zeros(len(codes))
    return Quantized(codes=codes, scale=scale, step=1, offset=1 << (bits - 1), bits=bits, squared_error=error)


LOW_RANK = WeightForm(name="low_rank", encode=encode, decode=decode, parts=parts, uses_inputs=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10)]
    return nn.Sequential(*layers).eval()


def main() -> None:
    WEIGHT_FORMS.add(LOW_RANK)
    torch.set_num_threads(1)
    model = read(network(), input_shape=(64,))
    # Inputs that fill few directions, as those of trained networks do.
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(SAMPLES, 6)) @ rng.normal(size=(6, 64))).astype(np.float32)
    for rounding in ("nearest", LOW_RANK.name):
        profile = lampq.profile(model, inputs, bits=(2, 3, 4), rounding=rounding, fisher_draws=0)
        plan = lampq.plan(profile, size_bytes=11_000)
        applied = lampq.apply(model, plan, f"{rounding}.safetensors", batch=inputs, force=True)
        loaded = read(load_quantized(applied.path, network), input_shape=(64,))
        damage = lampq.evaluate(loaded, inputs, reference=model).kl
        widths = list(plan.widths.values())
        print(f"{rounding}: {widths} bits, {applied.size_bytes:,} bytes, {damage:.5f} nats")


if __name__ == "__main__":
    main()
