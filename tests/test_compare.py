"""Plans side by side, in Python and on the command line."""

import dataclasses
import json

import numpy as np
import pytest
from command_line import run
from records import make_profile

import lampq
from lampq.conversions.imports import given_plan
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.layer import Layer


def plan_of(widths, seed=0, rename=None):
    """A plan for random weights by name; the same name has the same weights."""
    layers = []
    for name in widths:
        weight = np.random.default_rng([seed, sum(name.encode())]).normal(size=(8, 16)).astype(np.float32)
        layers.append(Layer.from_weight(name, weight, kind="linear", channel_axis=0))
    target = dataclasses.replace(Target.of(make_profile(0)), layers=tuple(layers), profile=None)
    plan = given_plan(
        {k: v if isinstance(v, tuple) else (v, None) for k, v in widths.items()}, target, notes=()
    )
    if rename is None:
        return plan
    return dataclasses.replace(
        plan, layers=tuple(dataclasses.replace(x, name=rename(x.name)) for x in plan.layers)
    )


def test_layers_are_matched_whatever_their_names():
    found = lampq.compare(
        [plan_of({"a": 2, "b": 4, "c": 8}), plan_of({"c": 8, "b": 3, "a": 2}, rename=str.upper)]
    )
    assert [(layer.name, layer.options) for layer in found.different] == [("b", ("w4", "w3"))]
    assert not found.same
    assert found.totals["average bits"] == (14 / 3, 13 / 3)


def test_float_layers_and_inputs_count():
    found = lampq.compare(
        [plan_of({"a": 2, "b": (4, 8)}), plan_of({"a": 2, "b": 4, "c": 5}), plan_of({"c": 5, "b": (4, 8)})]
    )
    assert {layer.name: layer.options for layer in found.layers} == {
        "a": ("w2", "w2", None),
        "b": ("w4a8", "w4", "w4a8"),
        "c": (None, "w5", "w5"),
    }


def test_a_fused_layer_against_its_parts():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 8, 16)).astype(np.float32)
    base = Target.of(make_profile(0))

    def plan(widths, **weights):
        layers = [Layer.from_weight(n, w, kind="linear", channel_axis=0) for n, w in weights.items()]
        target = dataclasses.replace(base, layers=tuple(layers), profile=None)
        return given_plan({n: (b, None) for n, b in widths.items()}, target, notes=())

    apart = plan({"q": 3, "k": 3, "v": 4}, q=q, k=k, v=v)
    fused = plan({"qkv": 3}, qkv=np.concatenate([q, k, v]))
    (row,) = lampq.compare([fused, apart]).layers
    assert row.options == ("w3", "w3/w4") and row.differs
    assert [row.options for row in lampq.compare([apart, fused]).layers] == [
        ("w3", "w3"),
        ("w3", "w3"),
        ("w4", "w3"),
    ]


def test_plans_of_different_models_are_refused():
    with pytest.raises(PlanError, match=r"plan 2 is of another model"):
        lampq.compare([plan_of({"a": 2}), plan_of({"a": 2}, seed=1)])
    assert lampq.compare([plan_of({"a": 2}), plan_of({"a": 2}, seed=1)], by_name=True).same
    with pytest.raises(PlanError, match="at least two"):
        lampq.compare([plan_of({"a": 2})])


@pytest.fixture
def files(tmp_path):
    plan_of({"a": 2, "b": 4}).write(tmp_path / "one.json")
    plan_of({"a": 2, "b": 3}).write(tmp_path / "two.json")
    return tmp_path


def test_the_command(files, capfd):
    code, out, err = run(capfd, "compare", files / "one.json", files / "two.json")
    assert code == 0 and out == "b\tw4\tw3\n"
    assert "1 of 2" in err and "average bits" in err
    code, out, _ = run(capfd, "compare", files / "one.json", files / "two.json", "--json", "--quiet")
    assert code == 0 and json.loads(out)["totals"]["average bits"] == [3, 2.5]


def test_checking_tells_by_the_exit_code(files, capfd):
    words = ("compare", "--check", "--quiet", files / "one.json")
    assert run(capfd, *words, files / "one.json")[0] == 0
    code, out, err = run(capfd, *words, files / "two.json")
    assert code == 2 and out and "1 of 2 layers have different widths" in err


def test_bad_files(files, capfd):
    (files / "bad.json").write_text("{}")
    for words, message in (
        ((files / "bad.json", files / "one.json"), "schema"),
        ((files / "one.json",), "two"),
    ):
        code, out, err = run(capfd, "compare", *words)
        assert code == 2 and message in err and len(err.splitlines()) == 1 and not out
