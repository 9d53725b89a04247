"""The limit of scores that see the weights of a layer and not its input."""

from __future__ import annotations

from lampq.core.values.errors import RecordError
from lampq.core.values.profile import Profile


def refuse_input_widths(profile: Profile, mode: str) -> None:
    """Stop where input widths are to be chosen by a score that does not see them.

    Raises:
        RecordError: The profile has several input widths.
    """
    if len({option.input_bits for option in profile.options}) > 1:
        raise RecordError(
            f"mode {mode} scores weights alone and the profile has several input widths; use mode kl or "
            f"superposition, or leave one input width"
        )
