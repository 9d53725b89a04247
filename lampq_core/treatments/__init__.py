"""Quantizers of activations: one file each, found by tag; those of other packages by entry points."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.core.treatments.adaptive_log import ADAPTIVE_LOG
from lampq.core.treatments.dither import DITHER
from lampq.core.treatments.focus import FOCUS
from lampq.core.treatments.head import HEAD
from lampq.core.treatments.head_channel import HEAD_CHANNEL
from lampq.core.treatments.log2 import LOG2
from lampq.core.treatments.noise import NOISE
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.token import TOKEN
from lampq.core.treatments.token_log import TOKEN_LOG
from lampq.core.treatments.twin import TWIN
from lampq.core.treatments.uniform import UNIFORM
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.registry import Registry

# A new one is a file here and a line below; in a package, a file and an entry point of the group `lampq.quantizers`.
QUANTIZERS = Registry(
    (
        UNIFORM,
        TOKEN,
        HEAD,
        HEAD_CHANNEL,
        LOG2,
        ADAPTIVE_LOG,
        TOKEN_LOG,
        TWIN,
        FOCUS,
        NOISE,
        DITHER,
    ),
    what="quantizer",
    group="lampq.quantizers",
    error=RecordError,
)


def rule_of(fitted: Fitted) -> ActivationRule:
    """The rule that a file describes.

    Raises:
        RecordError: No quantizer has its tag, or its parameters are none of such a quantizer; names it.
    """
    return QUANTIZERS.get(fitted.tag).load(fitted)


def for_role(role: str, names: Sequence[str] | None = None) -> tuple[Quantizer, ...]:
    """The quantizers that a site of a role may take, of those named or of all that are at hand.

    Raises:
        RecordError: A name is none of a quantizer.
    """
    every = QUANTIZERS.loaded.values() if names is None else [QUANTIZERS.get(name) for name in names]
    return tuple(quantizer for quantizer in every if role in quantizer.roles)
