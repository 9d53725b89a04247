"""An output of a model as its file describes it: what roles are inferred from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """An output, or an inner tensor that is judged in place of one.

    Attributes:
        name: Its name in the model.
        shape: One entry per axis, samples first; None where any length is possible. None: unknown altogether.
        dtype: NumPy name of the element type.
        producer: The operator it comes from, by its ONNX name where it has one (`Softmax`, `Sigmoid`, `Gemm`, ...);
            empty where it is unknown. Reshapes, transpositions, casts and the like in between are looked through.
        axis: Axis that a `Softmax`, `LogSoftmax` or normalization runs along in the output's own layout, or None.
        stands_for: Outputs of the model behind a discontinuous operator (NonMaxSuppression, TopK, ArgMax, ...), which
            this tensor is judged in place of; empty for an output of its own.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"
    producer: str = ""
    axis: int | None = None
    stands_for: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} {self.dtype}[?]"
        return f"{self.name} {self.dtype}[{'x'.join('?' if dim is None else str(dim) for dim in self.shape)}]"
