"""What the table of quantizers has of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.fitted import Fitted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantizer:
    """A kind of quantizer of activations.

    Attributes:
        name: Its tag.
        roles: Sites that can be rounded this way (`core.treatments.roles`).
        candidates: Rules of a width that are worth trying at a site, the parameters searched; may be none.
        load: From what a file holds to the rule.
        source: Where it is from.
    """

    name: str
    roles: frozenset[str]
    candidates: Callable[[Seen, int], Iterable[ActivationRule]]
    load: Callable[[Fitted], ActivationRule]
    source: str = ""
