"""Estimates of how long work takes, on a clock that is made up."""

import numpy as np
import pytest

from lampq.console import progress
from lampq.console.pace import Pace
from lampq.core.values.progress import rest


def estimates(costs, *, began=0.0):
    """(Estimate of the whole, seconds so far) after every step of work whose steps take `costs`."""
    pace, now, told = Pace(began), began, []
    for done, cost in enumerate(costs, start=1):
        now += cost
        pace.report(now, done, len(costs))
        told.append((pace.whole_s, now - began))
    return told


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_estimates_of_even_work_are_within_a_quarter_from_a_tenth_on(spread):
    costs = np.random.default_rng(0).uniform(1 - spread, 1 + spread, size=200)
    truth = costs.sum()
    for whole, now in estimates(costs)[20:]:
        assert abs(whole - truth) < 0.25 * truth, now


def test_what_is_made_once_does_not_count_for_all_steps():
    """The first step of gradients surveys the model, which takes as long as many steps."""
    costs = [10.0, *np.ones(90)]
    for whole, now in estimates(costs):
        if now > 20:
            assert abs(whole - 100) < 25, now


def test_steps_that_a_resumed_run_remembers_are_not_taken_for_its_pace():
    costs = [0.001] * 100 + [1.0] * 100
    assert all(abs(whole - 100) < 25 for whole, now in estimates(costs) if now > 5)


def test_layers_of_a_sweep_count_by_what_lies_behind_them():
    """A run from layer i on takes as long as the layers behind it: the estimate must not."""
    layers, widths = 50, 7
    costs = [rest(layer, layers) for layer in range(layers) for _ in range(widths)]
    pace, now, done = Pace(0.0), 0.0, 0
    for cost in costs:
        now, done = now + cost, done + cost
        pace.report(now, done, sum(costs))
        if now > cost:
            assert pace.whole_s == pytest.approx(sum(costs))


def test_other_work_of_the_same_name_begins_anew():
    pace = Pace(0.0)
    for step in range(1, 5):
        pace.report(float(step), step, 4)
    for step in range(1, 5):
        pace.report(4.0 + 10 * step, step, 40)
    assert pace.remaining_s == pytest.approx(360)
    assert pace.whole_s == pytest.approx(400)


def test_nothing_is_told_before_two_steps():
    pace = Pace(0.0)
    assert pace.whole_s is None
    pace.report(1.0, 1, 10)
    assert pace.remaining_s is None


def work(monkeypatch, step_s, steps):
    """Lines told by work whose steps take so long."""
    now, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar(enabled=True, tell=lines.append) as report:
        for done in range(1, steps + 1):
            now[0] += step_s
            report("measuring", done, steps)
    return lines


def test_long_work_is_announced_once_with_time_and_memory(monkeypatch):
    (line,) = work(monkeypatch, 1.0, 150)
    assert line.startswith("measuring: about 2 min 30 s in all, ")
    assert line.endswith(" GB of memory so far")


def test_short_work_is_not_announced(monkeypatch):
    assert work(monkeypatch, 0.2, 90) == []


def test_quiet_work_says_nothing(monkeypatch):
    monkeypatch.setattr(progress, "_LONG_S", 0.0)
    with progress.progress_bar(enabled=False, tell=lambda line: pytest.fail(line)) as report:
        report("measuring", 1, 2)
