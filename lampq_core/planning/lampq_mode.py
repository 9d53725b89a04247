"""What mode lampq asks of a profile and a request, as published."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.core.values.errors import RecordError
from lampq.core.values.modes import LAMPQ
from lampq.core.values.profile import Profile

# The paper leaves these two kinds out of the search.
_PINNED = ("patch_embed", "head")


def equal_widths(profile: Profile) -> Profile:
    """The options of a profile that have one width for weights and input; all of them where input widths do not vary.

    Raises:
        RecordError: There is none.
    """
    if len({option.activation_bits for option in profile.options}) == 1:
        return profile
    equal = [i for i, option in enumerate(profile.options) if option.weight_bits == option.activation_bits]
    if not equal:
        raise RecordError(
            "mode lampq gives weights and input of a layer one width, and the profile has no such pair"
        )
    return profile.narrowed(equal)


def default_pins(profile: Profile, mode: str) -> tuple[str, ...]:
    """Pins that a mode brings along; those of the user come after them and so override them."""
    if mode != LAMPQ or 8 not in profile.weight_bits:
        return ()
    present = {layer.kind for layer in profile.layers}
    return tuple(f"{kind}=8" for kind in _PINNED if kind in present)


def is_consecutive(widths: Sequence[int]) -> bool:
    """Whether each width is one more than the one before, as the update by single bits needs."""
    return list(widths) == list(range(widths[0], widths[-1] + 1))
