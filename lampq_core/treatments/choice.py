"""The quantizer of a site, chosen by what it does to the outputs."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.core.treatments import for_role
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.errors import RecordError


def best_rule(seen: Seen, bits: int, names: Sequence[str] | None = None) -> ActivationRule:
    """The rule of a width that loses least at a site, kind and parameters.

    Args:
        seen: The site.
        bits: Width.
        names: Quantizers to choose among; None: all that its role allows.

    Raises:
        RecordError: None of them can round it; names the site.
    """
    quantizers = for_role(seen.role, names)
    if not quantizers:
        raise RecordError(
            f"site {seen.name}: none of the quantizers {', '.join(names or ())} rounds {seen.role}; name another"
        )
    refused = ""
    best, least = None, float("inf")
    for quantizer in quantizers:
        try:
            for rule in quantizer.candidates(seen, bits):
                loss = seen.loss(rule)
                if loss < least:
                    best, least = rule, loss
        except RecordError as err:
            refused = str(err)
    if best is None:
        raise RecordError(refused or f"site {seen.name}: no quantizer fits its values; choose others")
    return best
