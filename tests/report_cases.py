"""Plans to make report pages of."""

import dataclasses

import lampq
from lampq.core.values.history import Round


def measured_plan(profile):
    """A plan as `quantize` leaves it: measured, with rounds."""
    rounds = (
        Round(number=0, measured=0.09, accepted=True),
        Round(number=1, before=0.09, predicted=0.07, measured=0.08, accepted=True),
        Round(number=2, before=0.08, predicted=0.06, measured=0.085, accepted=False),
    )
    made = lampq.plan(profile, average_bits=3.5)
    return dataclasses.replace(made, measured_kl=0.08, history=rounds)
