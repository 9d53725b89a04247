"""What a plan computes as a float ONNX file: the same numbers as the rounded PyTorch model, in any runtime."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy_model import NumpyModel
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, batch_for, make_plan
from torch_models import read_named

import lampq
from lampq import adapters
from lampq.adapters.onnx.simulate import simulate as write
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.adapters.torch.site_samples import site_samples
from lampq.cli import main
from lampq.core.measuring.reference import measure_reference
from lampq.core.treatments import QUANTIZERS
from lampq.core.treatments.choice import best_rule
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.plan_product import PlanProduct
from lampq.verbs.simulate import simulate


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A PyTorch model, a batch, what is seen at its sites, its export, and a plan of its weights at 4 bits."""
    model, batch = read_named("packed")
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path)
    reference = measure_reference(model, batch)
    sites = [*model.parameters.values(), *(site for p in model.products() for site in p.sites)]
    seen = site_samples(model.variant, reference.inputs, reference.readout, sites)
    plan = lampq.plan(lampq.profile(model, batch, bits=(4,), fisher_draws=0), average_bits=4)
    return model, batch, seen, adapters.read(path), plan


def planned(pair, names, bits=4):
    """The plan with every site rounded by the best of some quantizers, by the uniform one where none can."""
    model, _, seen, _, plan = pair

    def rule(site):
        try:
            return best_rule(seen[site], bits, names).fitted()
        except RecordError:
            return best_rule(seen[site], bits, ("uniform",)).fitted()

    layers = [
        dataclasses.replace(layer, activation_bits=bits, quantizer=rule(model.parameters[layer.name]))
        for layer in plan.layers
    ]
    products = [PlanProduct(product=p, left=rule(p.left), right=rule(p.right)) for p in model.products()]
    return dataclasses.replace(plan, layers=tuple(layers), products=tuple(products))


def run(path, batch):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def tags(plan):
    fitted = [layer.quantizer for layer in plan.layers]
    return {one.tag for one in (*fitted, *(side for p in plan.products for side in (p.left, p.right)))}


@pytest.mark.parametrize("name", list(QUANTIZERS.loaded))
def test_every_quantizer_is_written_in_standard_operators(name, pair, tmp_path):
    model, batch, _, export, _ = pair
    plan = planned(pair, (name,))
    assert name in tags(plan)
    out = tmp_path / "simulated.onnx"
    simulate(export, plan, out)
    expected = np.asarray(lampq.fake_quantize(model, plan).run(batch))
    assert np.abs(expected - np.asarray(model.run(batch))).max() > 1e-3
    np.testing.assert_allclose(run(out, batch), expected, atol=2e-4)
    np.testing.assert_allclose(run(out, batch[1:4]), expected[1:4], atol=2e-4)
    graph = onnx.load(out)
    assert {node.domain for node in graph.graph.node} == {""}
    assert not {node.op_type for node in graph.graph.node} & {"QuantizeLinear", "DequantizeLinear"}


def test_a_second_runtime_computes_the_same_from_the_file(pair, tmp_path):
    _, batch, _, export, _ = pair
    simulate(export, planned(pair, None), tmp_path / "s.onnx")
    reference = ReferenceEvaluator(onnx.load(tmp_path / "s.onnx"))
    (name,) = reference.input_names
    np.testing.assert_allclose(
        reference.run(None, {name: batch})[0], run(tmp_path / "s.onnx", batch), atol=2e-4
    )


def test_a_pytorch_model_is_exported_with_its_own_rounded_weights(pair, tmp_path):
    model, batch, _, _, _ = pair
    plan = dataclasses.replace(planned(pair, ("token", "log2")), rounding="inputs")
    simulate(model, plan, tmp_path / "s.onnx", batch=batch)
    expected = np.asarray(lampq.fake_quantize(model, plan, batch=batch).run(batch))
    np.testing.assert_allclose(run(tmp_path / "s.onnx", batch), expected, atol=2e-4)


def test_the_file_says_how_each_site_is_rounded_and_can_be_judged_like_any_other(pair, tmp_path):
    _, batch, _, export, _ = pair
    plan = planned(pair, ("uniform",))
    applied = simulate(export, plan, tmp_path / "s.onnx")
    assert applied.size_bytes == (tmp_path / "s.onnx").stat().st_size and applied.error < 0.005
    (entry,) = [e for e in onnx.load(tmp_path / "s.onnx").metadata_props if e.key == "lampq.simulated"]
    said = json.loads(entry.value)
    assert said["head"] == next(p for p in plan.layers if p.name == "head").quantizer.to_json()
    assert "transformer.layers.1.self_attn@probabilities" in said
    evaluated = lampq.evaluate(adapters.read(tmp_path / "s.onnx"), batch, reference=export)
    assert evaluated.kl > 1e-5


def test_products_are_found_by_order_where_nothing_names_them(pair, tmp_path):
    model, batch, _, export, _ = pair
    plan = planned(pair, ("uniform", "log2", "head"))
    bare = onnx.load(export.path)
    for node in bare.graph.node:
        del node.metadata_props[:]
        node.name = ""
    onnx.save(bare, tmp_path / "bare.onnx")
    simulate(adapters.read(tmp_path / "bare.onnx"), plan, tmp_path / "s.onnx")
    expected = np.asarray(lampq.fake_quantize(model, plan).run(batch))
    np.testing.assert_allclose(run(tmp_path / "s.onnx", batch), expected, atol=2e-4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own:
    """A quantizer of another package, which may compute something that has no operator here."""

    bits: int
    function: str

    def apply(self, values, axes=None, xp=np):
        last = (1 << self.bits) - 1
        return xp.round(getattr(xp, self.function)(values) * last) / last

    def fitted(self):
        return Fitted(tag=self.function, bits=self.bits)


@pytest.mark.parametrize("function", ["sqrt", "sinh"])
def test_quantizers_of_others_are_written_or_refused_by_the_site(function, pair, tmp_path):
    *_, export, _ = pair
    own = Quantizer(
        name=function,
        roles=frozenset([PROBABILITIES]),
        candidates=lambda seen, bits: [_Own(bits=bits, function=function)],
        load=lambda fitted: _Own(bits=fitted.bits, function=fitted.tag),
    )
    QUANTIZERS.add(own)
    try:
        plan = planned(pair, (function,))
        if function == "sqrt":
            simulate(export, plan, tmp_path / "s.onnx")
        else:
            with pytest.raises(
                lampq.AdapterError,
                match=r"site transformer\.layers\.0\.self_attn@probabilities, quantizer sinh: it computes sinh",
            ):
                simulate(export, plan, tmp_path / "s.onnx")
            assert not (tmp_path / "s.onnx").exists()
    finally:
        QUANTIZERS.loaded.pop(function)


def test_what_cannot_be_simulated_is_said_in_one_line(pair, tmp_path):
    *_, export, _ = pair
    plan = planned(pair, ("uniform",))
    with pytest.raises(lampq.AdapterError, match=r"a simulation is written as \.onnx; name such a file"):
        simulate(export, plan, tmp_path / "s.tflite")
    with pytest.raises(lampq.AdapterError, match="have no simulation of rounded activations, ONNX files and"):
        simulate(NumpyModel.random(), plan, tmp_path / "s.onnx")
    other = dataclasses.replace(plan.products[0].product, name="b@scores", macs=1)
    lost = dataclasses.replace(plan, products=(dataclasses.replace(plan.products[0], product=other),))
    with pytest.raises(lampq.PlanError, match="it lacks the products b@scores; pass --partial"):
        simulate(export, lost, tmp_path / "s.onnx")
    simulate(export, lost, tmp_path / "s.onnx", partial=True)
    with pytest.raises(lampq.OutputExistsError):
        simulate(export, lost, tmp_path / "s.onnx", partial=True)
    tokens = planned(pair, ("token",))
    with pytest.raises(
        lampq.AdapterError,
        match=r"cannot round .*\(token of 4 bits\).*factors of products to 2 to 8 or 16 bits on one range.*--simulate",
    ):
        lampq.apply(export, tokens, tmp_path / "q.onnx")


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_uniform_sites_are_written_as_integers_in_the_file_itself(bits, pair, tmp_path):
    model, batch, _, export, _ = pair
    plan = planned(pair, ("uniform",), bits)
    applied = lampq.apply(export, plan, tmp_path / "q.onnx", batch=batch)
    expected = np.asarray(lampq.fake_quantize(model, plan).run(batch))
    np.testing.assert_allclose(run(applied.path, batch), expected, atol=2e-2)
    assert np.median(np.abs(run(applied.path, batch) - expected)) < 1e-5
    graph = onnx.load(applied.path)
    grids = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert len(grids) == len(plan.layers) + 2 * len(plan.products)
    codes = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    wide = onnx.TensorProto.UINT16 if bits == 16 else onnx.TensorProto.UINT8
    assert {codes[node.input[2]] for node in grids} == {wide}
    assert applied.plan.total_bytes == (tmp_path / "q.onnx").stat().st_size


@pytest.mark.parametrize("rule", [ActivationGrid.from_range(0.0, 0.0, 4), TokenGrid(bits=4)])
@pytest.mark.parametrize("level", [0.0, 0.75])
def test_sites_that_never_move_stay_finite(rule, level, tmp_path):
    graph = Graph()
    still = graph.node("Clip", ["x", graph.tensor("low", level), graph.tensor("high", level)])
    graph.node("MatMul", [still, graph.weight("fc.weight", 8, 8)])
    model = adapters.read(graph.save(tmp_path / "m.onnx", ["n", 4, 8]))
    write(model, {"fc": rule}, tmp_path / "s.onnx")
    batch = batch_for(3, 4, 8)
    expected = np.asarray(model.run(batch))
    found = run(tmp_path / "s.onnx", batch)
    # A range that was all zero in calibration holds nothing else.
    np.testing.assert_allclose(found, expected if isinstance(rule, TokenGrid) else 0 * expected, atol=1e-6)
    written = lampq.apply(model, make_plan(model, 8, 8, ranges={"fc": (level, level)}), tmp_path / "q.onnx")
    np.testing.assert_allclose(run(written.path, batch), expected, atol=0.02)


def test_a_logarithmic_grid_of_zeros_is_refused_by_the_site():
    seen = Seen(name="m@probabilities", role=PROBABILITIES, values=np.zeros((2, 3, 4), np.float32), samples=2)
    with pytest.raises(
        RecordError, match="site m@probabilities: quantizer log2 needs values above 0, and all are 0"
    ):
        best_rule(seen, 4, ["log2"])


def test_quantize_writes_the_simulation_beside_the_file(pair, tmp_path):
    _, batch, _, export, _ = pair
    np.savez(tmp_path / "calib.npz", x=batch)
    arguments = ["quantize", str(export.path), "--data", str(tmp_path / "calib.npz"), "--avg-bits", "4"]
    arguments += ["--act-bits", "8", "--rounds", "0", "--fisher-draws", "0", "--quiet"]
    outputs = ["-o", str(tmp_path / "q.onnx"), "--simulate-out", str(tmp_path / "s.onnx")]
    assert main([*arguments, *outputs]) == 0
    np.testing.assert_allclose(run(tmp_path / "s.onnx", batch), run(tmp_path / "q.onnx", batch), atol=2e-2)
    assert main([*arguments, "-o", str(tmp_path / "r.onnx"), *outputs[2:]]) == 2
    assert not (tmp_path / "r.onnx").exists()


def test_attention_in_one_operator_names_itself(tmp_path):
    graph = Graph()
    inner = graph.node("MatMul", ["x", graph.weight("fc.weight", 8, 8)])
    graph.node("MultiHeadAttention", [inner] * 3, num_heads=2, domain="com.microsoft")
    model = adapters.read(graph.save(tmp_path / "m.onnx", ["n", 4, 8]))
    rule = ActivationGrid.from_range(0.0, 1.0, 4)
    with pytest.raises(
        lampq.AdapterError, match=r"no site fc@queries; n1 \(MultiHeadAttention\) keep products inside"
    ):
        write(model, {"fc@queries": rule}, tmp_path / "s.onnx")


def test_the_command_writes_the_file(pair, tmp_path, capsys):
    _, batch, _, export, _ = pair
    plan = planned(pair, ("token",))
    plan.write(tmp_path / "p.json")
    out = tmp_path / "s.onnx"
    assert main(["apply", str(export.path), str(tmp_path / "p.json"), "--simulate", "-o", str(out)]) == 0
    assert np.isfinite(run(out, batch)).all()
    assert main(["apply", str(export.path), str(tmp_path / "p.json"), "-o", str(tmp_path / "q.onnx")]) == 2
    assert "--simulate" in capsys.readouterr().err
