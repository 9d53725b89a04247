"""What stands for a model while its activations are rounded and there is no file yet."""

from __future__ import annotations

from lampq.adapters import format_named
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.treatments.uniform import UNIFORM
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.factors import takes_rank
from lampq.core.values.measurement import Measurement
from lampq.verbs.input_ranges import UNMEASURED


def roundable(model: Model, batch: BatchLike | None, measurement: Measurement) -> Model:
    """The model itself where it rounds activations, or need not before it is written; else the same in PyTorch.

    Args:
        model: The model.
        batch: Calibration inputs, preprocessed, samples first, or None.
        measurement: Sites and widths.

    Raises:
        AdapterError: It cannot be had there; says why.
    """
    rounding = format_named(model.format).rounding
    widths = measurement.act_bits or ()
    if batch is None or rounding is None or rounds_activations(model) or not widths:
        return model
    if not measurement.chooses_quantizers and len(widths) == 1 and widths[0] in UNMEASURED:
        return model
    return rounding(model, batch)


def refuse_unheld_ranks(model: Model, measurement: Measurement) -> None:
    """Stop before any work where files of a model hold no factors of low rank, or none of a rank.

    Raises:
        AdapterError: There are such ranks to measure.
    """
    if not measurement.ranked:
        return
    beside = set(format_named(model.format).low_rank(model))
    if not beside:
        raise AdapterError(
            f"{model.path.name} has no place for factors of low rank: they stand beside products with a matrix in ONNX "
            f"files; leave out --ranks, or export the model to ONNX"
        )
    shapes = [layer.shape for layer in model.layers() if layer.name in beside]
    rank = max(measurement.ranks)
    if not any(takes_rank(shape, rank) for shape in shapes):
        most = max((min(shape) for shape in shapes if len(shape) == 2), default=0)
        raise AdapterError(
            f"no layer of {model.path.name} takes factors of rank {rank}: give --ranks of at most {most}"
        )


def refuse_unwritten_sites(model: Model, measurement: Measurement) -> None:
    """Stop before any work where files of a model would not hold what sites are going to choose.

    Raises:
        AdapterError: They hold uniform sites alone, and others may be chosen.
    """
    if measurement.chooses_quantizers and set(measurement.quantizers or ()) != {UNIFORM.name}:
        raise AdapterError(
            f"{model.path.name}: {model.format} files round sites on one range alone; pass --quantizers uniform, or "
            f"profile, plan, and write what the plan computes in float with apply --simulate"
        )
