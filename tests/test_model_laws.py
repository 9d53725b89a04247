"""Every format keeps to the laws of models, and every law can be broken."""

import dataclasses

import numpy as np
import pytest
from law_breakers import BREAKERS
from law_cases import CASES

from lampq.core.values.errors import RecordError
from lampq.testing import model_laws

LAWS = {law.name: law for law in model_laws.laws()}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES)
def test_every_format_keeps_to_the_laws(case, law):
    LAWS[law](CASES[case]())


def test_every_law_has_a_model_that_breaks_it():
    assert list(BREAKERS) == list(LAWS)


def broken(law):
    """The case of the NumPy model, with one that breaks a law in its place."""
    case, model = CASES["numpy model"](), BREAKERS[law]
    whole, empty = case.read()._weights, case.empty().fixed
    return dataclasses.replace(
        case,
        read=lambda: model(whole),
        other=lambda: model(case.other()._weights),
        empty=lambda: model(whole, fixed=empty),
        gradients=hasattr(model, "fisher"),
    )


@pytest.mark.parametrize("law", BREAKERS)
def test_a_broken_law_is_told_in_one_line(law):
    with pytest.raises(model_laws.LawError) as caught:
        LAWS[law](broken(law))
    message = str(caught.value)
    assert message.startswith(f"{law}: ") and "\n" not in message
    # It is the law itself that says so, not an accident on the way.
    assert isinstance(caught.value.__cause__, model_laws.LawError)


def test_all_broken_laws_are_told_at_once():
    model_laws.check(CASES["numpy model"]())
    with pytest.raises(model_laws.LawError) as caught:
        model_laws.check(broken("a weight is a copy"))
    assert {line.partition(":")[0] for line in str(caught.value).splitlines()} == {"a weight is a copy"}


def test_laws_want_a_few_samples():
    with pytest.raises(RecordError, match="3 samples or more"):
        dataclasses.replace(CASES["numpy model"](), batch=np.zeros((2, 16), np.float32))
