"""What notebooks show of plans, profiles, evaluations and curves."""

import builtins
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from records import make_profile
from rich.console import Console

import lampq
from lampq.console import progress
from lampq.core.values.errors import MissingExtraError, RecordError
from lampq.core.values.notebook import html_table
from lampq.verbs.evaluate import Evaluation


@pytest.fixture(scope="module")
def profile():
    return make_profile(3).with_tables(logit_delta=None)


@pytest.fixture(scope="module")
def plan(profile):
    return lampq.plan(profile, average_bits=3)


EVALUATION = Evaluation(samples=10, top1=0.9, kl=0.01, agreement=1.0, size_bytes=1234, ms_per_sample=1.0)


def test_plans_profiles_and_evaluations_are_tables(plan, profile):
    shown = plan._repr_html_()
    assert all(layer.name in shown for layer in plan.layers)
    assert f"bytes {plan.total_bytes:,}" in shown
    assert "<th>w2" in profile._repr_html_() and "samples 6" in profile._repr_html_()
    assert "top-1 90.00%" in EVALUATION._repr_html_()
    bare = make_profile(3, data=False)
    assert "<th>w2" not in bare._repr_html_()


def test_names_stay_text(plan):
    evil = "<script>alert(1)</script>\x1b[31m"
    layers = (dataclasses.replace(plan.layers[0], name=evil), *plan.layers[1:])
    shown = dataclasses.replace(plan, layers=layers)._repr_html_()
    assert "<script>" not in shown and "\x1b" not in shown and "&lt;script&gt;" in shown


def test_long_tables_are_cut():
    shown = html_table("t", {}, ("a",), [(i,) for i in range(1000)])
    assert shown.count("<tr>") == 1 + 30 + 1 and "and 970 more" in shown


def test_everything_has_a_picture(plan, profile):
    for what in (plan, profile, EVALUATION, lampq.sweep(profile)):
        pixels = np.asarray(Image.open(io.BytesIO(lampq.plot(what)._repr_png_())))
        assert pixels.shape[0] > 100 and len(np.unique(pixels)) > 2
    many = dataclasses.replace(
        plan, layers=tuple(dataclasses.replace(plan.layers[0], name=str(i)) for i in range(200))
    )
    assert lampq.plot(many)._repr_png_()


@pytest.mark.parametrize("what", [3, "plan.json", (), [1, 2]])
def test_what_has_no_picture_is_said(what):
    with pytest.raises(RecordError, match="there are pictures of a plan"):
        lampq.plot(what)


def test_without_matplotlib_its_extra_is_named(plan, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"lampq\[plot\]"):
        lampq.plot(plan)


@pytest.mark.filterwarnings("ignore:install .*ipywidgets")
def test_bars_show_in_notebooks(monkeypatch):
    made = []
    monkeypatch.setattr(progress, "_PATIENCE_S", -1)
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **_: made.append(Console(file=io.StringIO(), force_jupyter=True)) or made[0],
    )
    shown = []
    monkeypatch.setattr("rich.jupyter.display", lambda *words, **_: shown.append(words))
    with progress.progress_bar(enabled=True) as report:
        report("work", 1, 2)
    assert made[0].is_jupyter
    assert report is not progress.quiet
