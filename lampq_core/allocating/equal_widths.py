"""Profiles seen by scores that know one width for weights and input of a layer, and no factors of low rank."""

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


def one_width(profile: Profile) -> Profile:
    """The options of `equal_widths` without factors of low rank.

    Raises:
        RecordError: There is none.
    """
    equal = equal_widths(profile)
    plain = [index for index, option in enumerate(equal.options) if not option.rank]
    return equal if len(plain) == len(equal.options) else equal.narrowed(plain)
