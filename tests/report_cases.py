"""Plans to make report pages of, fixtures to import, and what pages hold of the curve."""

import base64
import dataclasses
import json
import re
import zlib

import numpy as np
import pytest
from records import make_profile

import lampq
from lampq.core.values.history import Round
from lampq.verbs.report import surroundings


def measured_plan(profile):
    """A plan as `quantize` leaves it: measured, with rounds."""
    rounds = (
        Round(number=0, measured=0.09, accepted=True),
        Round(number=1, before=0.09, predicted=0.07, measured=0.08, accepted=True),
        Round(number=2, before=0.08, predicted=0.06, measured=0.085, accepted=False),
    )
    made = lampq.plan(profile, average_bits=3.5)
    return dataclasses.replace(made, measured_kl=0.08, history=rounds)


def values_of(page):
    packed = re.search(r"<div id=plans hidden>([^<]*)</div>", page.read_text(encoding="utf-8"))[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def plans_of(values):
    """Options of all plans, shape (P, L), from what the page stores."""
    steps = np.array([ord(c) - ord("0") for c in values["steps"]]).reshape(-1, len(values["weights"]))
    return np.cumsum(steps, axis=0) % len(values["options"])


@pytest.fixture(scope="module")
def profile():
    return make_profile(3)


@pytest.fixture(scope="module")
def plan(profile):
    return measured_plan(profile)


@pytest.fixture(scope="module")
def around(plan, profile):
    return surroundings(plan, profile)
