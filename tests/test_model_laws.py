"""Every format keeps to the laws of models, and every law can be broken."""

from __future__ import annotations

import pytest
from law_cases import CASES

from lampq.testing import model_laws


@pytest.mark.parametrize("law", model_laws.laws(), ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_format_keeps_to_the_laws(case, law):
    law(CASES[case]())
