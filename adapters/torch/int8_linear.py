"""Linear layers as integer matrix products."""

from __future__ import annotations

import torch
from torch.nn import functional

from lampq.adapters.torch.packed import PackedFile
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.activation_grid import ActivationGrid

# What torch._int_mm asks of a GPU: more rows than this, and other sizes in multiples of 8.
_ROWS, _MULTIPLE = 17, 8


class Int8Linear(torch.nn.Module):
    """y = x W^T + b with W in int8 and x rounded to 8 bits on the way in.

    With a grid the input has one scale and zero point, known beforehand; without one every row gets its own
    scale, symmetric.

    Args:
        integers: int8, shape (outputs, inputs).
        scale: float32, shape (outputs,).
        bias: Shape (outputs,), or None.
        grid: Grid of the input, or None.
    """

    integers: torch.Tensor
    scale: torch.Tensor
    sums: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self,
        integers: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        grid: ActivationGrid | None,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = integers.shape
        self.grid = grid
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        # What a zero point adds to every product.
        self.register_buffer("sums", integers.sum(dim=1, dtype=torch.int32))

    @property
    def weight(self) -> torch.Tensor:
        """The weight in float: containers look at it to learn sizes and types."""
        return self.integers.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of any leading shape."""
        rows = x.reshape(-1, self.in_features).float()
        if self.grid is None:
            scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            codes = torch.round(rows / scale).to(torch.int8)
            result = _product(codes, self.integers) * scale
        else:
            # Codes 0 .. top around their middle fit int8.
            middle = (self.grid.top + 1) // 2
            codes = torch.round(rows / self.grid.scale) + self.grid.zero_point
            codes = (codes.clamp_(0, self.grid.top) - middle).to(torch.int8)
            product = _product(codes, self.integers) + self.sums * (middle - self.grid.zero_point)
            result = product * self.grid.scale
        result = result * self.scale
        if self.bias is not None:
            result = result + self.bias
        return result.to(x.dtype).reshape(*x.shape[:-1], self.out_features)


def use_int8(module: torch.nn.Module, file: PackedFile) -> list[str]:
    """Replace the `nn.Linear` layers whose weights a file holds; returns the names of these weights.

    Subclasses are left alone: what holds them may read their weights without calling them, as
    `nn.MultiheadAttention` does.
    """
    replaced = []
    for path, member in list(module.named_modules()):
        record = file.records.get(f"{path}.weight")
        if type(member) is not torch.nn.Linear or record is None or record.channel_axis != 0:
            continue
        quantized = file.weights[f"{path}.weight"]
        if not isinstance(quantized, Quantized):
            # Other forms than codes on a uniform grid stay float.
            continue
        if record.scales != len(member.weight):
            # Integer products want one scale per output channel; blocks stay float.
            continue
        bias = None if member.bias is None else member.bias.detach().float()
        device = member.weight.device
        layer = Int8Linear(
            torch.from_numpy(quantized.integers()),
            torch.from_numpy(quantized.scale),
            bias,
            record.activation_grid,
        )
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, layer.to(device).eval())
        replaced.append(f"{path}.weight")
    return replaced


def _product(codes: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
    """Codes @ integers^T, int32; padded to the sizes a GPU wants."""
    rows, inputs = codes.shape
    outputs = len(integers)
    if codes.is_cuda:
        more = -inputs % _MULTIPLE
        codes = functional.pad(codes, (0, more, 0, max(0, _ROWS - rows)))
        integers = functional.pad(integers, (0, more, 0, -outputs % _MULTIPLE))
    return torch._int_mm(codes, integers.t())[:rows, :outputs]
