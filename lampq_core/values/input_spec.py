"""Shape and type of a model's input, and how its axes are to be read when it takes images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lampq.core.values.errors import AdapterError, RecordError

LAYOUTS = ("NCHW", "NHWC", "NHW")
CHANNELS = (1, 3, 4)
FLOATING = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The input of a model.

    Attributes:
        name: Name of the input in the model.
        shape: One entry per axis, samples first; None where any length is accepted. (): one number for all
            samples, to be fixed rather than fed.
        dtype: NumPy name of the element type.
        any_rank: The model does not say how many axes there are; the shape is () then.
        optional: Data may leave it out.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    any_rank: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        if any(dim is not None and dim < 1 for dim in self.shape):
            raise RecordError(f"input {self.name}: shape {self.shape} has an axis shorter than 1")

    @property
    def batch(self) -> int | None:
        """Samples per run where the model fixes them, otherwise None."""
        return self.shape[0] if self.shape else None

    @property
    def layout(self) -> str | None:
        """The likely meaning of the axes, one of `LAYOUTS`; None where nothing tells.

        Four axes hold the channels (1, 3 or 4) second or last. Where both could be, the reading with a square
        image wins, then channels first. Three axes are a grey image where both sides are equal.
        """
        dims = self.shape
        if len(dims) == 3:
            return "NHW" if dims[1] is not None and dims[1] == dims[2] else None
        if len(dims) != 4:
            return None
        first, last = dims[1] in CHANNELS, dims[3] in CHANNELS
        if first and last:
            return "NHWC" if dims[1] == dims[2] != dims[3] else "NCHW"
        if first or last:
            return "NCHW" if first else "NHWC"
        # An unknown number of channels: the other three axes may still tell.
        if dims[1] is None and None not in dims[2:]:
            return "NCHW"
        if dims[3] is None and None not in dims[1:3]:
            return "NHWC"
        return None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether samples of a batch of this shape fit; the number of samples is not compared."""
        if self.any_rank:
            return bool(shape)
        if len(shape) != len(self.shape) or not shape:
            return False
        pairs = zip(self.shape[1:], shape[1:], strict=True)
        return all(dim is None or dim == size for dim, size in pairs)

    def __str__(self) -> str:
        if self.any_rank:
            return f"{self.name} {self.dtype}[...]"
        dims = "x".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.dtype}[{dims}]"


def only_input(specs: Sequence[InputSpec], whose: str) -> InputSpec:
    """The input of a model that must be fed one.

    Raises:
        AdapterError: It has several; lists them.
    """
    needed = [spec for spec in specs if not spec.optional]
    if len(needed) != 1:
        raise AdapterError(f"{whose} takes {len(specs)} inputs: {', '.join(map(str, specs))}; name them all")
    return needed[0]
