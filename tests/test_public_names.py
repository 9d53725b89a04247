"""What `lampq` offers: one list, which type checkers and readers of the module see alike."""

import inspect
import subprocess
import sys

import pytest
from test_packaging import FOREIGN

import lampq

# A mapping of further names is one more parameter for the eye, but not for the hand.
MOST_PARAMETERS = 8


@pytest.mark.parametrize("name", lampq.__all__)
def test_every_public_name_exists(name):
    assert getattr(lampq, name) is not None
    assert name in dir(lampq)


def test_what_scripts_catch_and_pass_is_public():
    errors = {name for name in lampq.__all__ if name.endswith("Error")}
    assert {"LampqError", "RecordError", "BudgetError", "PlanError", "AdapterError", "SolverError"} <= errors
    assert all(issubclass(getattr(lampq, name), lampq.LampqError) for name in errors)
    assert {"Request", "Measurement", "Recipe", "Option", "Budget"} <= set(lampq.__all__)


def test_all_public_names_together_load_numpy_alone():
    code = "import sys, lampq; [getattr(lampq, name) for name in lampq.__all__]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "numpy" in loaded
    assert not loaded & FOREIGN


def test_names_that_are_not_there_are_said_so():
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = lampq.magic


@pytest.mark.parametrize("name", [n for n in lampq.__all__ if inspect.isfunction(getattr(lampq, n))])
def test_no_verb_has_more_parameters_than_one_can_hold(name):
    parameters = inspect.signature(getattr(lampq, name)).parameters.values()
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert len(named) <= MOST_PARAMETERS, [p.name for p in named]
