"""Profiles of pairs, seen by scores that know one width for weights and input of a layer."""

from __future__ import annotations

from lampq.core.values.errors import RecordError
from lampq.core.values.profile import Profile


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
