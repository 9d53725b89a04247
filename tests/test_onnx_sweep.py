"""Running ONNX with weights replaced: whole, in segments, and one layer at a time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import exported, graph, mlp, normal, saved
from onnx_runs import EXPORTS, changed, images, read, reference, rewritten, run

from lampq.core.values.errors import AdapterError

node = helper.make_node


# ---- weights replaced ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_replaced_weights_give_what_a_rewritten_file_gives(tmp_path, name, exporter):
    path, x = exported(name, exporter), images(5)
    model = read(path)
    new = changed(model)
    by_initializer = {site.weight.name: new[site.name] for site in model.variant.opened.sites}
    expected = reference(rewritten(path, tmp_path, by_initializer), x)
    assert np.abs(expected - run(model, x)).max() > 0.01
    np.testing.assert_allclose(run(model.with_weights(new), x), expected, atol=2e-5)
    # One by one, on top of each other.
    some = model
    for key, array in new.items():
        some = some.with_weights({key: array})
    np.testing.assert_allclose(run(some, x), expected, atol=2e-5)
    assert some.weight("patch_embed.proj" if name != "conv" else "stem.0") is not None


def test_a_variant_leaves_the_model_as_it_was():
    model, x = read(exported("vit", "dynamo")), images(3)
    before, records = run(model, x), model.layers()
    new = changed(model)
    variant = model.with_weights(new)
    assert variant.digest == model.digest
    np.testing.assert_array_equal(variant.weight("head"), new["head"])
    assert not np.array_equal(model.weight("head"), new["head"])
    np.testing.assert_allclose(
        [float(layer.weight.whole().std[0]) for layer in variant.layers()],
        [float(new[layer.name].std()) for layer in records],
        rtol=1e-5,
    )
    assert [layer.name for layer in variant.layers()] == [layer.name for layer in records]
    run(variant, x)
    np.testing.assert_array_equal(run(model, x), before)
    assert model.layers() is records


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_segments_give_what_the_whole_gives(name, exporter):
    model, x = read(exported(name, exporter)), images(5)
    whole = run(model, x)
    assert len(model.backend.engine.chain) > 3
    unchanged = [(layer.name, 0, model.weight(layer.name)) for layer in model.layers()]
    for _, _, logits in model.sweep(x, unchanged):
        np.testing.assert_allclose(logits, whole, atol=1e-5)
    np.testing.assert_allclose(run(model.with_weights({}), x), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "exporter", "order"),
    [
        *((*export, "model") for export in EXPORTS),
        ("encoder", "dynamo", "reverse"),
        ("vit", "dynamo", "random"),
    ],
)
def test_a_sweep_gives_what_single_replacements_give(name, exporter, order):
    model, x = read(exported(name, exporter)), images(3)
    new = changed(model)
    candidates = [(key, option, (option + 1) * array) for key, array in new.items() for option in range(2)]
    if order == "reverse":
        candidates.reverse()
    elif order == "random":
        candidates = [candidates[i] for i in np.random.default_rng(3).permutation(len(candidates))]
    swept = list(model.sweep(x, iter(candidates)))
    assert [(key, option) for key, option, _ in swept] == [(key, option) for key, option, _ in candidates]
    for (key, _, array), (_, _, logits) in zip(candidates, swept, strict=True):
        np.testing.assert_allclose(logits, run(model.with_weights({key: array}), x), atol=2e-5)


def test_a_sweep_around_other_weights():
    model, x = read(exported("vit", "legacy")), images(3)
    new = changed(model)
    centre = model.with_weights(new)
    originals = [(layer.name, 0, model.weight(layer.name)) for layer in model.layers()]
    for key, _, logits in centre.sweep(x, originals):
        expected = run(model.with_weights({k: v for k, v in new.items() if k != key}), x)
        np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_a_sweep_draws_candidates_one_by_one():
    model, x = read(exported("vit", "dynamo")), images(2)
    drawn = []

    def candidates():
        for layer in model.layers():
            drawn.append(layer.name)
            yield layer.name, 0, model.weight(layer.name)

    for number, _ in enumerate(model.sweep(x, candidates()), start=1):
        assert len(drawn) == number


def test_a_sweep_refuses_what_does_not_fit(tmp_path):
    model = read(saved(mlp(2), tmp_path))
    with pytest.raises(AdapterError, match="no layer 'nowhere'"):
        list(model.sweep(normal(2, 16), [("nowhere", 0, normal(2, 2))]))
    with pytest.raises(AdapterError, match="has shape"):
        list(model.sweep(normal(2, 16), [("fc0", 0, normal(2, 2))]))


def test_a_sweep_reports_logits_that_are_not_finite(tmp_path):
    model = read(saved(mlp(2), tmp_path))
    broken = model.weight("fc1") * np.float32(np.inf)
    (found,) = model.sweep(normal(2, 16), [("fc1", 3, broken)])
    assert found[:2] == ("fc1", 3)
    assert not np.isfinite(found[2]).all()


def test_weights_shared_across_segments_change_in_all_places(tmp_path):
    nodes, value = [], "x"
    weights = {"shared": normal(16, 16) / 4}
    for index in range(4):
        name = "shared" if index in (0, 3) else f"own{index}"
        weights.setdefault(name, normal(16, 16, seed=index) / 4)
        nodes += [node("MatMul", [value, name], [f"m{index}"]), node("Tanh", [f"m{index}"], [f"t{index}"])]
        value = f"t{index}"
    nodes.append(node("Identity", [value], ["logits"]))
    path = saved(graph(nodes, weights, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 16]}), tmp_path)
    model, x = read(path), normal(5, 16)
    new = {"shared": normal(16, 16, seed=9) / 4}
    expected = reference(rewritten(path, tmp_path, new), x)
    np.testing.assert_allclose(run(model.with_weights(new), x), expected, atol=1e-5)
    ((_, _, logits),) = model.sweep(x, [("shared", 0, new["shared"])])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    taps = sorted((name, positions) for name, _, positions in model.taps(x))
    assert taps == [("own1", 1), ("own2", 1), ("shared", 2), ("shared", 2)]


def test_bodies_that_read_outer_values_run_in_segments(tmp_path):
    def branch(name: str, op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node(op, ["h0", "h1"], [name])], name, [], [out])

    nodes = [
        node("MatMul", ["x", "w0"], ["h0"]),
        node("MatMul", ["h0", "w1"], ["h1"]),
        node("MatMul", ["h1", "w2"], ["h2"]),
        node("ReduceSum", ["h2"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["i"], then_branch=branch("t", "Add"), else_branch=branch("e", "Sub")),
        node("MatMul", ["i", "w3"], ["logits"]),
    ]
    weights = {f"w{i}": normal(16, 16, seed=i) / 4 for i in range(4)} | {"zero": np.float32(0).reshape(())}
    # A decision over the whole batch: one sample at a time.
    path = saved(graph(nodes, weights, inputs={"x": [1, 16]}, outputs={"logits": [1, 16]}), tmp_path)
    model = read(path)
    new = changed(model)
    for seed in range(4):
        x = normal(1, 16, seed=seed)
        np.testing.assert_allclose(run(model, x), reference(path, x), atol=1e-5)
        expected = reference(rewritten(path, tmp_path, new), x)
        np.testing.assert_allclose(run(model.with_weights(new), x), expected, atol=1e-5)
    assert len(model.backend.engine.chain) > 1


@st.composite
def _networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random graphs of products, sums, concatenations and nonlinearities, read near and far."""
    width = 8
    values, nodes, weights = ["x"], [], {"eye": np.eye(width, dtype=np.float32)}
    for index in range(draw(st.integers(3, 14))):
        pick = lambda: values[draw(st.integers(0, len(values) - 1))]  # noqa: E731
        kind, out = draw(st.sampled_from(["matmul", "matmul", "add", "relu", "concat", "left"])), f"v{index}"
        if kind == "matmul":
            name = draw(st.sampled_from([f"w{index}", "shared"]))
            weights.setdefault(name, normal(width, width, seed=index) / 3)
            nodes.append(node("MatMul", [pick(), name], [out]))
        elif kind == "left":
            weights[f"w{index}"] = normal(width, width, seed=index) / 3
            nodes += [
                node("Transpose", [pick()], [f"{out}t"], perm=[1, 0]),
                node("Gemm", [f"w{index}", f"{out}t"], [f"{out}l"]),
                node("Transpose", [f"{out}l"], [out], perm=[1, 0]),
            ]
        elif kind == "add":
            nodes.append(node("Add", [pick(), pick()], [out]))
        elif kind == "relu":
            nodes.append(node("Tanh", [pick()], [out]))
        else:
            weights[f"w{index}"] = normal(2 * width, width, seed=index) / 4
            nodes += [
                node("Concat", [pick(), pick()], [f"{out}c"], axis=1),
                node("MatMul", [f"{out}c", f"w{index}"], [out]),
            ]
        values.append(out)
    weights["last"] = normal(width, width, seed=99) / 3
    nodes.append(node("MatMul", [values[-1], "last"], ["logits"]))
    return graph(nodes, weights, inputs={"x": ["n", width]}, outputs={"logits": ["n", width]})


@given(model=_networks())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_graph_swept_in_segments_gives_what_rewritten_files_give(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("network")
    path = saved(model, folder)
    opened, x = read(path), normal(3, 8)
    np.testing.assert_allclose(run(opened, x), reference(path, x), atol=1e-4)
    new = changed(opened)
    initializer = {site.name: site.weight.name for site in opened.variant.opened.sites}
    for key, _, logits in opened.sweep(x, [(key, 0, array) for key, array in new.items()]):
        expected = reference(rewritten(path, folder, {initializer[key]: new[key]}), x)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    everything = rewritten(path, folder, {initializer[key]: array for key, array in new.items()})
    np.testing.assert_allclose(run(opened.with_weights(new), x), reference(everything, x), atol=1e-4)
