"""The smallest plan that keeps a metric: chosen by measuring, verified, and told."""

import json

import numpy as np
import pytest
from records import make_profile
from test_cli_metrics import place, run  # noqa: F401

import lampq
from lampq import solvers
from lampq.core.planning.search import Search
from lampq.core.planning.smallest_kept import smallest_kept
from lampq.core.planning.tradeoff import unbeaten
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.journal import journal_of
from lampq.core.values.request import Request
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, PREPROCESS, VALIDATION_PATH
from lampq.metrics import metric
from lampq.metrics.drop import Drop
from lampq.verbs import within_drop


@pytest.fixture(scope="module")
def search():
    return Search.of(make_profile(), Request.of(average_bits=8, mode="kl"), solvers.solve)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.5, 0.9, 1.0])
def test_bisection_returns_the_smallest_plan_where_size_decides(search, share):
    _, sizes, _ = unbeaten(search, "bytes")
    least = sizes[round(share * (len(sizes) - 1))]
    asked = []

    def keeps(choice):
        asked.append(search.profile.stored_bytes[np.arange(len(choice)), choice].sum())
        return asked[-1] >= least

    found = smallest_kept(search, keeps)
    taken = search.profile.stored_bytes[np.arange(len(found.choice)), found.choice].sum()
    assert (taken, found.curve, found.measured) == (least, len(sizes), len(asked))
    assert len(asked) <= len(sizes).bit_length() + 6
    assert len(set(asked)) == len(asked)


def test_a_plan_that_is_returned_was_measured_and_kept_whatever_the_metric_does(search):
    choices, _, _ = unbeaten(search, "bytes")
    rng = np.random.default_rng(0)
    for _ in range(20):
        luck = {choice.tobytes(): bool(rng.random() < 0.5) for choice in choices}
        luck[choices[-1].tobytes()] = True
        measured = []

        def keeps(choice, luck=luck, measured=measured):
            measured.append(choice.tobytes())
            return luck[measured[-1]]

        found = smallest_kept(search, keeps).choice.tobytes()
        assert found in measured
        assert luck[found]
        order = [choice.tobytes() for choice in choices]
        assert order.index(found) == min(order.index(key) for key in measured if luck[key])


def test_the_widest_plan_must_keep_it(search):
    with pytest.raises(BudgetError, match="the widest plan within the limits loses more already"):
        smallest_kept(search, lambda choice: False)


@pytest.mark.parametrize(
    ("text", "name", "float_value", "worst"),
    [
        ("1%", "top1", 0.8, 0.792),
        ("0.01", "top1", 0.8, 0.79),
        ("1%", "ctc", 0.0, 0.01),
        ("10%", "perplexity", 20.0, 22.0),
        ("0%", "map", 0.5, 0.5),
    ],
)
def test_a_drop_is_a_share_or_a_number(text, name, float_value, worst):
    drop = Drop.of(text)
    assert drop.worst(metric(name), float_value) == pytest.approx(worst)
    assert drop.keeps(metric(name), worst, float_value)
    beyond = worst - 1e-6 if metric(name).higher_is_better else worst + 1e-6
    assert not drop.keeps(metric(name), beyond, float_value)


@pytest.mark.parametrize("text", ["much", "-1%", "100%", "nan", "-0.1", "inf", ""])
def test_drops_that_cannot_be_are_refused(text):
    with pytest.raises(BudgetError, match="largest drop"):
        Drop.of(text)


@pytest.fixture(scope="module")
def digits():
    model = lampq.read(MODEL_PATH)
    read = {"input_specs": model.input_specs, "preprocess": PREPROCESS}
    calibration = lampq.read_data(CALIBRATION_PATH, **read, samples=48)
    return model, calibration.inputs(), lampq.read_data(VALIDATION_PATH, **read, samples=200)


def test_quantize_writes_the_smallest_plan_that_keeps_top1(digits, tmp_path):
    model, batch, data = digits
    chosen = {"rounding": "nearest", "bits": (2, 3, 4, 8), "fisher_draws": 0, "mode": "kl"}
    task = lampq.Task(metrics=["top1"], labels=data.labels(), inputs=data.inputs())
    plan = lampq.quantize(model, batch, tmp_path / "a.onnx", max_drop="2%", task=task, **chosen)
    found = lampq.evaluate(lampq.read(tmp_path / "a.onnx"), data.inputs(), data.labels())
    own = lampq.evaluate(model, data.inputs(), data.labels())
    assert found.top1 >= 0.98 * own.top1
    assert plan.average_bits < 4
    assert plan.budget["size_bytes"] == pytest.approx(plan.total_bytes, rel=0.02)
    (note,) = [note for note in plan.notes if note.startswith("top1 ")]
    assert "plans measured, of" in note
    assert "that stays within 2%" in note
    strict = lampq.quantize(model, batch, tmp_path / "b.onnx", max_drop=0, task=task, **chosen)
    assert strict.total_bytes > plan.total_bytes


def test_metrics_of_plans_that_a_killed_run_measured_are_not_measured_again(digits, tmp_path, monkeypatch):
    model, batch, data = digits
    chosen = {"rounding": "nearest", "bits": (2, 4, 8), "fisher_draws": 0, "mode": "kl", "max_drop": "2%"}
    task = lampq.Task(metrics=["top1"], labels=data.labels(), inputs=data.inputs())
    counts = []
    count, measure = [0], within_drop.measured

    def counted(*words):
        count[0] += 1
        return measure(*words)

    monkeypatch.setattr(within_drop, "measured", counted)
    plans = []
    with journal_of(tmp_path / "q.onnx", {"model": "m"}, fresh=False, tell=lambda line: None) as journal:
        for name in ("a", "b"):
            count[0] = 0
            out = tmp_path / f"{name}.onnx"
            plans.append(lampq.quantize(model, batch, out, task=task, journal=journal, **chosen))
            counts.append(count[0])
    # The float model and the plan that is written.
    assert counts[0] > counts[1] == 2
    assert plans[0].layers == plans[1].layers
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_other_limits_hold_besides(digits, tmp_path):
    model, batch, _ = digits
    chosen = {"rounding": "nearest", "bits": (2, 3, 4), "fisher_draws": 0, "mode": "kl", "pins": ["head=4"]}
    known = {"metrics": ["top1"], "max_drop": "50%"}
    plan = lampq.quantize(
        model, batch, tmp_path / "a.onnx", average_bits=3, floors=["fc1=3"], **chosen, **known
    )
    widths = {layer.kind: layer.weight_bits for layer in plan.layers}
    assert (widths["head"], widths["fc1"]) == (4, 3)
    with pytest.raises(BudgetError, match=r"top1 1 of the float model may get 1 at worst \(0\).*it reaches"):
        lampq.quantize(
            model,
            batch,
            tmp_path / "b.onnx",
            average_bits=2,
            **{**chosen, "pins": []},
            metrics=["top1"],
            max_drop=0,
        )
    assert not (tmp_path / "b.onnx").exists()


def test_inputs_that_only_a_file_rounds_are_measured_in_files(place, tmp_path, capsys):
    words = ["quantize", place / "d.onnx", "--data", place / "images", "--max-drop", "60%", "--metric", "map"]
    out = tmp_path / "q.onnx"
    code, printed, err = run(
        capsys, *words, "--act-bits", "8", "--bits", "4,8", "--rounding", "nearest", "-o", out, "--json"
    )
    assert code == 0, err
    assert {layer["activation_bits"] for layer in json.loads(printed)["layers"]} == {8}
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-drop", "1%"), "--max-drop needs a metric: --metric with one of top1"),
        (("--metric", "map", "--avg-bits", "4"), "--metric and --val choose a plan together with --max-drop"),
        (("--metric", "map", "--max-drop", "lots"), "largest drop 'lots'"),
        (("--metric", "map", "--metric", "map50", "--max-drop", "1%"), "needs one metric, not 2"),
        ((), "no budget"),
    ],
)
def test_what_cannot_be_kept_is_told_in_a_line(place, tmp_path, capsys, words, message):
    base = ("quantize", place / "d.onnx", "--data", place / "images", "-o", tmp_path / "q.onnx")
    code, out, err = run(capsys, *base, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_metric_without_a_drop_chooses_nothing(digits, tmp_path):
    model, batch, _ = digits
    with pytest.raises(RecordError, match="metrics choose a plan together with a largest drop"):
        lampq.quantize(model, batch, tmp_path / "a.onnx", average_bits=4, metrics=["top1"])
