"""The door to the solvers: what it refuses, what it needs installed, and that nothing is printed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from solver_cases import CASES, two_budgets

from lampq.core.values.errors import BudgetError, SolverError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Status
from lampq.solvers import SOLVERS, cbc, exact, highs, solve
from lampq.solvers.quiet import quiet_stdout

NAMES = ("auto", *SOLVERS)


# --- the front door -----------------------------------------------------------------------------------------


def test_an_unknown_solver_is_told_the_known_ones():
    with pytest.raises(SolverError, match=r"no solver 'glpk'; there are auto, exact, scipy, cbc"):
        solve(CASES[0].problem(), solver="glpk")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_time_limit_is_a_number_of_seconds(seconds):
    with pytest.raises(BudgetError, match="time limit"):
        solve(CASES[0].problem(), time_limit_s=seconds)


@pytest.mark.parametrize("module", [exact, highs, cbc])
def test_a_solver_module_refuses_what_it_does_not_handle(module):
    problem = Problem.build([[1.0, 0.0]] * 2, [[1, 2]] * 2, 3, ties=[(0, 1)])
    with pytest.raises(SolverError, match="ties or pins"):
        module.solve(problem)


@pytest.mark.parametrize("solver", NAMES)
def test_no_layers_need_no_choice(solver):
    problem = Problem.build(np.zeros((0, 3)), np.zeros((1, 0, 3), dtype=int), 5)
    answer = solve(problem, solver=solver)
    assert (answer.status, answer.choice.tolist(), answer.objective) == (Status.OPTIMAL, [], 0.0)


def run_without(modules, code):
    """Run code where some packages cannot be imported; its stdout."""
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    tests = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", block + f"sys.path.insert(0, {tests!r})\n" + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@pytest.mark.parametrize(("solver", "package"), [("scipy", "scipy"), ("cbc", "mip")])
def test_a_missing_package_is_named_with_its_extra(solver, package):
    said = run_without(
        [package],
        f"""
        from lampq.core.values.errors import MissingExtraError
        from lampq.solvers import solve
        from solver_cases import CASES
        try:
            solve(CASES[1].problem(), solver={solver!r})
        except MissingExtraError as err:
            print(err)
        """,
    )
    assert said == f"{package} is not installed; run: pip install 'lampq[{solver}]'\n"


def test_the_base_install_solves_several_budgets():
    said = run_without(
        ["scipy", "mip"],
        """
        from lampq.solvers import solve
        from solver_cases import CASES
        for case in CASES:
            print(case.name, solve(case.problem()).status is case.status)
        """,
    )
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["True"] * len(CASES)


@pytest.mark.parametrize("solver", NAMES)
def test_nothing_is_printed(solver, capfd):
    # HiGHS prints a line of its own on the first of these, whatever its options say.
    for seed in (1, 2):
        solve(two_budgets(100 if solver == "scipy" else 30, seed), solver=solver, time_limit_s=5)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_silence_ends_with_the_solver(capfd):
    with quiet_stdout():
        os.write(1, b"from C")
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"
