"""Correspondence of models, profiles and plans, on the command line and when a plan is applied."""

import json
import shutil

import numpy as np
import pytest
from onnx import helper
from onnx_graphs import make_plan, rounded, run
from onnx_models import graph, normal, saved

import lampq
from lampq import adapters
from lampq.cli import main
from lampq.core.values.errors import PlanError
from lampq.demo_data import MODEL_PATH
from lampq.verbs.apply import fit_to

WIDTH = 16


def attention(path, *, fused, change=lambda w: w, head_seed=9):
    """x (N, 16) through q * k + v and a classifier; q, k, v in one weight or in three."""
    parts = {name: change(normal(WIDTH, WIDTH, seed=i) / 4) for i, name in enumerate("qkv")}
    head = normal(WIDTH, 4, seed=head_seed)
    node = helper.make_node
    if fused:
        weights = {"qkv.weight": np.concatenate(list(parts.values()), axis=1)}
        sizes = np.full(3, WIDTH, dtype=np.int64)
        weights["sizes"] = sizes
        first = [
            node("MatMul", ["x", "qkv.weight"], ["both"], name="qkv"),
            node("Split", ["both", "sizes"], ["q", "k", "v"], axis=1),
        ]
    else:
        weights = {f"{name}.weight": w for name, w in parts.items()}
        first = [node("MatMul", ["x", f"{name}.weight"], [name], name=name) for name in "qkv"]
    weights["head.weight"] = head
    nodes = [
        *first,
        node("Mul", ["q", "k"], ["qk"]),
        node("Add", ["qk", "v"], ["sum"]),
        node("MatMul", ["sum", "head.weight"], ["logits"], name="head"),
    ]
    built = graph(nodes, weights, inputs={"x": ["n", WIDTH]}, outputs={"logits": ["n", 4]})
    return saved(built, path.parent, path.name)


@pytest.fixture
def pair(tmp_path):
    """The same network with fused and with separate weights."""
    return (
        adapters.read(attention(tmp_path / "fused.onnx", fused=True)),
        adapters.read(attention(tmp_path / "split.onnx", fused=False)),
    )


def test_parts_take_the_width_of_the_fused_weight(pair, tmp_path):
    fused, split = pair
    fitted = fit_to(split, make_plan(fused, {"qkv": 3, "head": 5}))
    assert fitted.widths == {"q": 3, "k": 3, "v": 3, "head": 5}
    assert fitted.payload_bytes == sum(
        split.payload_bytes(layer, fitted.widths[layer.name], "bitplane") for layer in split.layers()
    )
    batch = normal(5, WIDTH, seed=7)
    lampq.apply(split, make_plan(fused, {"qkv": 3, "head": 5}), tmp_path / "q.onnx")
    expected = split.with_weights(rounded_at(split, fitted.widths)).run(batch)
    np.testing.assert_allclose(run(tmp_path / "q.onnx", batch), expected, rtol=1e-4, atol=1e-4)


def rounded_at(model, widths):
    return {name: rounded(model, bits)[name] for name, bits in widths.items()}


def test_a_fused_weight_takes_the_width_its_parts_agree_on(pair):
    fused, split = pair
    fitted = fit_to(fused, make_plan(split, {"q": 3, "k": 3, "v": 3, "head": 5}))
    assert fitted.widths == {"qkv": 3, "head": 5}


def test_parts_that_disagree_are_refused_unless_the_widest_is_wanted(pair):
    fused, split = pair
    plan = make_plan(split, {"q": 2, "k": 3, "v": 4, "head": 5})
    with pytest.raises(
        PlanError, match=r"qkv .* different widths \(q 2 bits, k 3 bits, v 4 bits\).*--widest"
    ):
        fit_to(fused, plan)
    assert fit_to(fused, plan, widest=True).widths == {"qkv": 4, "head": 5}


def test_quantized_inputs_of_parts(pair):
    fused, split = pair
    names = ("q", "k", "v", "head")
    plan = make_plan(
        split, 4, activations=8, ranges={name: (-1.0 - i, 2.0 + i) for i, name in enumerate(names)}
    )
    (qkv, _) = fit_to(fused, plan).layers
    assert (qkv.activation_bits, qkv.activation_range) == (8, (-3.0, 4.0))
    mixed = make_plan(split, 4, activations={"q": 8, "head": 8})
    with pytest.raises(PlanError, match="different widths"):
        fit_to(fused, mixed)
    (qkv, _) = fit_to(fused, mixed, widest=True).layers
    assert qkv.activation_bits is None


def command(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_command_prints_the_correspondence(pair, tmp_path, capfd):
    code, out, err = command(capfd, "match", tmp_path / "fused.onnx", tmp_path / "split.onnx")
    assert code == 0
    assert out.splitlines() == ["qkv\tq + k + v\tfused", "head\thead\tweight"]
    assert "distance" in err


@pytest.mark.parametrize("kind", ["plan", "profile"])
def test_plans_and_profiles_match_models(pair, kind, tmp_path, capfd):
    fused, _ = pair
    if kind == "plan":
        make_plan(fused, 4).write(tmp_path / "left.json")
    else:
        lampq.profile(fused, None, bits=(4,)).write(tmp_path / "left.json")
    code, out, _ = command(
        capfd, "match", tmp_path / "left.json", tmp_path / "split.onnx", "--json", "--quiet"
    )
    found = json.loads(out)
    assert code == 0
    assert found["complete"] and not found["only_left"] and not found["only_right"]
    assert {"left": ["qkv"], "right": ["q", "k", "v"], "how": "fused"}.items() <= found["matches"][0].items()


def test_what_is_left_over_is_listed_and_the_exit_code_tells(pair, tmp_path, capfd):
    attention(tmp_path / "tuned.onnx", fused=False, head_seed=10)
    words = ("match", tmp_path / "split.onnx", tmp_path / "tuned.onnx", "--json", "--quiet")
    code, out, err = command(capfd, *words)
    assert code == 2
    assert json.loads(out)["only_left"] == json.loads(out)["only_right"] == ["head"]
    assert "1 layers of the first have no match (head)" in err and len(err.splitlines()) == 1
    code, out, _ = command(capfd, *words, "--by-name")
    assert code == 0
    assert json.loads(out)["matches"][-1]["how"] == "name"


def test_apply_takes_the_flags(pair, tmp_path, capfd):
    _, split = pair
    make_plan(split, {"q": 2, "k": 3, "v": 4, "head": 5}).write(tmp_path / "plan.json")
    words = ("apply", tmp_path / "fused.onnx", tmp_path / "plan.json", "--quiet", "-o", tmp_path / "q.onnx")
    code, _, err = command(capfd, *words)
    assert code == 2 and "--widest" in err and not (tmp_path / "q.onnx").exists()
    assert command(capfd, *words, "--widest")[0] == 0
    assert adapters.read(tmp_path / "q.onnx").stored_bits()["qkv"] == (4, "bitplane")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.json", MODEL_PATH), "no such file"),
        ((MODEL_PATH, "notes.json"), "neither a profile nor a plan"),
        ((MODEL_PATH, MODEL_PATH, "--weights-a", "x.pth"), "no factory"),
        (("notes.json", MODEL_PATH, "--weights-a", "x.pth"), "no factory"),
    ],
)
def test_bad_files(words, message, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    code, out, err = command(capfd, "match", *words)
    assert code == 2 and message in err and not out and len(err.splitlines()) == 1


def test_copies_of_one_weight_take_its_width_and_must_agree_on_it(tmp_path):
    """An exporter may store a weight that two layers share twice, or two equal weights once."""
    w = normal(WIDTH, WIDTH) / 4
    node = helper.make_node

    def chain(names, path):
        nodes = [
            node("MatMul", ["x", names[0]], ["h"], name="first"),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", names[1]], ["logits"], name="second"),
        ]
        built = graph(
            nodes, dict.fromkeys(names, w), inputs={"x": ["n", WIDTH]}, outputs={"logits": ["n", WIDTH]}
        )
        return adapters.read(saved(built, tmp_path, path))

    once, twice = chain(["a", "a"], "once.onnx"), chain(["a", "b"], "twice.onnx")
    assert set(fit_to(twice, make_plan(once, 3)).widths.values()) == {3}
    assert set(fit_to(once, make_plan(twice, 3)).widths.values()) == {3}
    names = [layer.name for layer in twice.layers()]
    with pytest.raises(PlanError, match="different widths"):
        fit_to(once, make_plan(twice, dict(zip(names, (2, 4), strict=True))))


def test_python_takes_paths_and_values(pair, tmp_path):
    fused, split = pair
    assert lampq.match(tmp_path / "fused.onnx", split).complete
    shutil.copy(tmp_path / "split.onnx", tmp_path / "other.onnx")
    assert lampq.match(make_plan(fused, 4), tmp_path / "other.onnx").complete
