"""Metrics of tasks: one file each, found by name. Those of other packages are entry points of `lampq.metrics`."""

from __future__ import annotations

from collections.abc import Callable

from lampq.core.values.errors import RecordError
from lampq.core.values.registry import Registry
from lampq.metrics.accuracy import TOP1, TOP5
from lampq.metrics.average_precision import MAP, MAP50
from lampq.metrics.boxes import Boxes
from lampq.metrics.case import Case
from lampq.metrics.decoders import DECODERS, Decoder
from lampq.metrics.edit_distance import CTC, TOKENS, ctc
from lampq.metrics.embeddings import COSINE, RECALL1
from lampq.metrics.mean_iou import MEAN_IOU
from lampq.metrics.metric import Measured, Metric
from lampq.metrics.perplexity import PERPLEXITY

METRICS = Registry(
    (TOP1, TOP5, MAP, MAP50, MEAN_IOU, COSINE, RECALL1, CTC, TOKENS, PERPLEXITY),
    what="metric",
    group="lampq.metrics",
    error=RecordError,
)


def metric(choice: str | Metric | Callable[[Case], float]) -> Metric:
    """The metric of a name or of `module:function`; a function of a case is one, and a metric itself.

    Raises:
        RecordError: There is none of this name.
        AdapterError: The function cannot be imported.
    """
    if isinstance(choice, Metric):
        return choice
    if isinstance(choice, str):
        if ":" not in choice:
            return METRICS.get(choice)
        from lampq.adapters.data import load_function

        function = load_function(choice)
        return function if isinstance(function, Metric) else _own(function, choice)
    return _own(choice, getattr(choice, "__name__", "metric"))


def _own(function: Callable[[Case], float], name: str) -> Metric:
    """A user's function as a metric, told by its attribute where it is better the smaller."""
    better = bool(getattr(function, "higher_is_better", True))
    return Metric(name=name, measure=function, against=("inputs",), higher_is_better=better)


__all__ = ["DECODERS", "METRICS", "Boxes", "Case", "Decoder", "Measured", "Metric", "ctc", "metric"]
