"""Input widths through the verbs: profiles of pairs, plans, fake-quantized models, and the published recipe."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from divergence import kl_divergence, second_order_kl
from held_out_kl import by_quarters
from numpy_model import NumpyModel
from torch_models import read_named

from lampq.adapters import read
from lampq.cli import main
from lampq.core.allocating.scores.fisher import fisher_scores
from lampq.core.allocating.scores.lampq import lampq_scores
from lampq.core.measuring.reference import input_batch
from lampq.core.measuring.setting import profile_rule, profile_setting
from lampq.core.values.budget import Budget
from lampq.core.values.errors import AdapterError, BudgetError, RecordError
from lampq.core.values.merge import merge
from lampq.core.values.option import all_options
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import Recipe
from lampq.core.values.shard import Shard
from lampq.demo_data import MODEL_PATH
from lampq.verbs.best_plan import best_plan
from lampq.verbs.evaluate import evaluate
from lampq.verbs.fake_quantize import fake_quantize
from lampq.verbs.input_ranges import input_ranges
from lampq.verbs.inspect import inspect
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile
from lampq.verbs.quantize import quantize


@pytest.fixture(scope="module")
def measured():
    model, batch = read_named("packed")
    choices = {"act_bits": (2, 4, 8), "fisher_draws": 1, "measure": "differences"}
    return model, batch, profile(model, batch, bits=(2, 3, 4, 8), **choices)


def test_a_profile_of_pairs_holds_what_settings_do(measured):
    model, batch, found = measured
    assert [option.to_text() for option in found.options[:4]] == ["w2a2", "w2a4", "w2a8", "w3a2"]
    reference = np.asarray(model.run(batch))
    choices = {"tolerance": 0, "fisher_draws": 0, "measure": "differences"}
    exact = profile(model, batch, bits=(2, 4), act_bits=(2, 8), **choices)
    assert exact.provenance["activations"]["summed"] == 0
    for i, layer in enumerate(exact.layers):
        for j in range(len(exact.options)):
            setting = profile_setting(model, exact, i, j)
            delta = np.asarray(model.with_weights({layer.name: setting}).run(batch)) - reference
            own = second_order_kl(reference, delta).mean()
            assert exact.array("gram")[i, j, i, j] == pytest.approx(own, rel=1e-3, abs=1e-8)
            assert exact.kl[i, j] == pytest.approx(
                kl_divergence(reference, reference + delta).mean(), rel=1e-3, abs=1e-7
            )
    told = found.provenance["activations"]
    assert told["range"] == "mse"
    assert told["largest_accepted_error"] <= 0.1
    assert told["runs"] + told["summed"] >= found.kl.size


def test_a_profile_of_pairs_survives_its_files_and_merges(measured, tmp_path):
    model, batch, found = measured
    found.write(tmp_path / "p.json")
    back = Profile.read(tmp_path / "p.json")
    listed = inspect(tmp_path / "p.json")
    assert listed.columns[-1] == "KL at w8a8"
    assert len(set(listed.columns)) == 5 + len(found.options)
    np.testing.assert_array_equal(back.activation_range, found.activation_range)
    assert back.options == found.options
    # As if from other samples.
    both = merge([back, found.with_tables(signature=found.array("signature") + np.float32(1))])
    np.testing.assert_allclose(both.kl, found.kl)
    parts = [
        profile(model, batch, bits=(2, 4), act_bits=(2, 8), shard=Shard(index=i, count=2), fisher_draws=0)
        for i in (1, 2)
    ]
    whole = profile(model, batch, bits=(2, 4), act_bits=(2, 8), tolerance=0, fisher_draws=0)
    together = merge(parts)
    np.testing.assert_array_equal(together.activation_range, whole.activation_range)
    np.testing.assert_allclose(together.array("signature"), whole.array("signature"), atol=1e-4)
    np.testing.assert_allclose(together.kl, whole.kl, rtol=0.3, atol=1e-4)
    moved = found.with_tables(
        activation_range=found.activation_range * 2, signature=found.array("signature") + np.float32(1)
    )
    with pytest.raises(RecordError, match="differ in activation_range"):
        merge([found, moved])


@pytest.mark.parametrize("method", ["mse", "token", "minmax"])
def test_a_plan_alone_reproduces_the_rounding(measured, method):
    model, batch, _ = measured
    found = profile(model, batch, bits=(3, 8), act_bits=(3, 8), act_range=method, fisher_draws=0)
    result = plan(found, budget=Budget(average_bits=5, average_input_bits=5))
    rounded = fake_quantize(model, result)
    settings = {}
    for i, (layer, decision) in enumerate(zip(found.layers, result.layers, strict=True)):
        widths = (decision.weight_bits, decision.activation_bits)
        j = [(o.weight_bits, o.activation_bits) for o in found.options].index(widths)
        settings[layer.name] = profile_setting(model, found, i, j)
        assert (decision.activation_range is None) == (method == "token")
    np.testing.assert_array_equal(rounded.run(batch), model.with_weights(settings).run(batch))
    judged = evaluate(model, batch, plan=result)
    assert judged.kl == pytest.approx(kl_divergence(model.run(batch), rounded.run(batch)).mean())
    assert judged.size_bytes == result.total_bytes


def test_both_averages_hold_and_are_used(measured):
    _, _, found = measured
    elements = np.array([layer.activation.count / found.samples for layer in found.layers])
    for mode in ("kl", "superposition"):
        result = plan(found, budget=Budget(average_bits=3.5, average_input_bits=4), mode=mode)
        widths = np.array([layer.activation_bits for layer in result.layers])
        assert result.average_bits <= 3.5
        assert 3 < elements @ widths / elements.sum() <= 4
    with pytest.raises(BudgetError, match=r"average input bits 1\.9 is below the floor of 2\.0000"):
        plan(found, budget=Budget(average_input_bits=1.9))


def test_the_additive_optimum_of_pairs_is_that_of_trying_all(measured):
    model, batch, _ = measured
    small = profile(model, batch, bits=(2, 4), act_bits=(2, 8), fisher_draws=0)
    budget = Budget(average_bits=3, average_input_bits=5)
    result = plan(small, budget=budget, mode="kl")
    elements = np.array([layer.activation.count for layer in small.layers])
    w = np.array([o.weight_bits for o in small.options])
    a = np.array([o.activation_bits for o in small.options])
    # The running minimum over narrower pairs.
    cost = np.stack(
        [small.kl[:, [k for k in range(4) if w[k] <= w[j] and a[k] <= a[j]]].min(axis=1) for j in range(4)], 1
    )
    choices = np.array(list(itertools.product(range(4), repeat=len(small.layers))))
    fits = (w[choices] @ small.sizes <= 3 * small.sizes.sum()) & (a[choices] @ elements <= 5 * elements.sum())
    best = cost[np.arange(len(small.layers)), choices[fits]].sum(axis=1).min()
    assert result.predicted_kl == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("mode", ["superposition", "lampq", "kl"])
def test_the_best_plan_is_measured_with_its_inputs_rounded(measured, mode):
    model, batch, _ = measured
    choices = {"fisher_draws": 1, "measure": "differences"}
    found = profile(model, batch, bits=(2, 3, 4), act_bits=(2, 3, 4), **choices)
    budget = Budget(average_bits=3, average_input_bits=3)
    result = best_plan(model, found, batch, budget, mode=mode, rounds=1)
    expected = kl_divergence(model.run(batch), fake_quantize(model, result).run(batch)).mean()
    assert result.measured_kl == pytest.approx(expected, rel=1e-6)
    if mode == "lampq":
        assert all(layer.weight_bits == layer.activation_bits for layer in result.layers)
        assert len({layer.weight_bits for layer in result.layers}) > 1


def test_the_published_recipe_pins_the_outer_layers(measured):
    _, _, found = measured
    result = plan(found, budget=Budget(average_bits=5, average_input_bits=6), mode="lampq")
    widths = {layer.kind: (layer.weight_bits, layer.activation_bits) for layer in result.layers}
    assert widths["patch_embed"] == widths["head"] == (8, 8)


def test_the_update_sees_rounded_inputs_of_the_quantized_network(measured):
    """Its first errors, by hand: W_hat X_hat - W X with X_hat from the quantized network, rounded."""
    from lampq.core.searching.lampq_update import _errors, _Weights

    model, batch, found = measured
    equal = found.narrowed([i for i, o in enumerate(found.options) if o.weight_bits == o.activation_bits])
    assert [o.to_text() for o in equal.options] == ["w2a2", "w4a4", "w8a8"]
    rules = lambda i, j: profile_rule(equal, i, j)  # noqa: E731
    widths = equal.weight_bits.tolist()
    weights = _Weights(model, equal.layers, widths, rules)
    choice = np.ones(len(equal.layers), dtype=np.int64)
    quantized = weights.applied(choice)
    movable = np.array([len(layer.shape) == 2 for layer in equal.layers])
    errors = _errors(model, quantized, weights, batch, choice, movable, 3, None)
    inputs = {name: values for name, values, _ in model.taps(batch)}
    given = {name: values for name, values, _ in quantized.taps(batch)}
    for i in np.flatnonzero(movable):
        layer = equal.layers[i]
        exact = inputs[layer.name].reshape(-1, layer.shape[1]) @ model.weight(layer.name).T
        for j in range(3):
            setting = profile_setting(model, equal, i, j)
            rounded = setting.activation.apply(given[layer.name].reshape(-1, layer.shape[1]))
            expected = np.square(rounded @ setting.weight.T - exact).sum() / np.square(exact).sum()
            assert errors[i, j] == pytest.approx(expected, rel=1e-3)


def test_every_choice_of_the_recipe_changes_the_score(measured):
    _, _, found = measured
    base = lampq_scores(found)
    ratio = base[:, :1] / base
    assert np.allclose(ratio, 4.0 ** (found.weight_bits - 2)[None, :])
    steep = lampq_scores(found, Recipe(gamma=2.65))
    assert np.allclose(steep[:, :1] / steep, 2.65 ** (found.weight_bits - 2)[None, :])
    kinds = np.array([layer.kind for layer in found.layers])
    single = lampq_scores(found, Recipe(probes=1))
    changed = found.array("changed")[:, 0]
    accuracy = lampq_scores(found, Recipe(type_scale="accuracy", probes=9))
    traces = np.array([layer.fisher for layer in found.layers])
    for kind in set(kinds):
        members = np.flatnonzero(kinds == kind)
        assert single[members[0], 0] == pytest.approx(
            found.kl[members[0], 0] * traces[members[0]] / traces[members].mean()
        )
        assert accuracy[members, 0].mean() == pytest.approx(changed[members].mean(), abs=1e-9)
    later = lampq_scores(found, Recipe(beta=8, probes=9))
    at_eight = int(np.flatnonzero(found.weight_bits == 8)[0])
    assert later[:, at_eight].sum() == pytest.approx(found.kl[:, at_eight].sum())


def test_a_joint_score_in_the_profile_is_what_mode_fisher_adds_up(measured):
    _, _, found = measured
    joint = np.random.default_rng(0).uniform(size=found.kl.shape)
    np.testing.assert_array_equal(fisher_scores(found.with_tables(joint_fisher=joint)), joint)
    with pytest.raises(RecordError, match="joint_fisher is negative"):
        found.with_tables(joint_fisher=-joint)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type_scale": "loss"}, "none of kl, accuracy"),
        ({"gamma": 1.0}, "gamma is 1.0"),
        ({"beta": 0}, "beta is 0"),
        ({"probes": 0}, "at least 1 probe"),
        ({"most_swaps": -1}, "0 swaps"),
        ({"table": "guess"}, "none of paper"),
    ],
)
def test_recipes_that_cannot_be(fields, says):
    with pytest.raises(RecordError, match=says):
        Recipe(**fields)


def test_widths_and_ranges_that_cannot_be(measured):
    model, batch, found = measured
    with pytest.raises(RecordError, match="activation range 'best' is none of"):
        profile(model, batch, act_bits=(4, 8), act_range="best")
    with pytest.raises(RecordError, match="--data"):
        profile(model, act_bits=(4, 8))
    with pytest.raises(RecordError, match="1 activation bits"):
        profile(model, batch, act_bits=(1, 8))
    odd = found.narrowed([1, 3])
    with pytest.raises(RecordError, match="no such pair"):
        plan(odd, average_bits=3, mode="lampq")
    backwards = found.activation_range[:, :, ::-1]
    with pytest.raises(RecordError, match="ends before it begins"):
        found.with_tables(activation_range=backwards)


def test_other_formats_say_what_they_can():
    with pytest.raises(
        AdapterError, match=r"inputs of 4, 8 bits; the runtimes of numpy models have inputs of 8 bits alone"
    ):
        profile(NumpyModel.random(), np.zeros((2, 8), np.float32), act_bits=(4, 8))
    model = read(MODEL_PATH)
    batch = np.zeros((2, 1, 8, 8), np.float32)
    with pytest.raises(AdapterError, match=r"inputs of 8, 16 bits; .* 8 or 16 bits alone"):
        input_ranges(model, (), all_options((4,), (8, 16)), input_batch(model, batch))
    with pytest.raises(AdapterError, match="onnx models take minmax alone"):
        profile(model, batch, act_bits=8, act_range="mse")


def test_the_command_line(tmp_path, capfd):
    _, batch = read_named("packed")
    np.savez(tmp_path / "x.npz", x=np.repeat(batch, 2, 0), y=np.arange(10) % 4)
    (tmp_path / "net.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom torch_models import MODELS\n"
        "def build():\n    return MODELS['packed'][0]()\n"
    )
    common = ["--data", str(tmp_path / "x.npz"), "--preset", "none", "--quiet"]
    model = f"{tmp_path}/net.py:build"
    profiled, planned = str(tmp_path / "p.json"), str(tmp_path / "plan.json")
    flags = ["--bits", "2,4,8", "--act-bits", "2,4,8", "--act-range", "percentile", "--fisher-draws", "1"]
    flags += ["--measure", "differences"]
    assert main(["profile", model, *common, *flags, "-o", profiled]) == 0
    limits = ["--avg-bits", "4", "--avg-act-bits", "4"]
    recipe = ["--mode", "lampq", "--type-scale", "accuracy", "--gamma", "3", "--beta", "4", "--probes", "1"]
    assert (
        main(["plan", profiled, *limits, *recipe, "--pin", "head=4", "--pin", "patch_embed=4", "-o", planned])
        == 0
    )
    capfd.readouterr()
    assert main(["eval", model, *common, "--plan", planned, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["kl"] > 0
    assert result["samples"] == 10
    assert main(["profile", model, *common, "--act-bits", "1", "-o", str(tmp_path / "no.json")]) == 2
    assert "choose 2 to 8" in capfd.readouterr().err


def test_quantize_writes_weights_and_ranges(tmp_path):
    model, batch = read_named("packed")
    result = quantize(
        model,
        batch,
        tmp_path / "q.safetensors",
        budget=Budget(average_bits=5, average_input_bits=6),
        bits=(3, 8),
        act_bits=(4, 8),
        fisher_draws=0,
        rounds=1,
    )

    truth = np.asarray(model.run(batch))

    def damage(fitted, judged):
        quantized = fake_quantize(model, result, batch=batch[fitted])
        return kl_divergence(truth[judged], quantized.run(batch[judged])).mean()

    assert result.measured_kl == pytest.approx(by_quarters(len(batch), damage), rel=1e-6)
    assert (tmp_path / "q.safetensors").exists()
    with pytest.raises(RecordError, match="rounding to the layers' inputs needs data"):
        fake_quantize(model, result)
