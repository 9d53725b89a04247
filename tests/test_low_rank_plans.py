"""Factors of low rank in plans and in ONNX files: what ONNX Runtime computes, to the byte and to the last digits."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_graphs import Graph, batch_for, make_plan, optimized_ops, run, transformer

import lampq
from lampq.adapters.onnx.reader import read
from lampq.cli import main
from lampq.core.measuring.encoding import with_rounding
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import AdapterError, PlanError, RecordError
from lampq.core.values.factors import factor_bytes


def product(folder, *, op="Gemm", **attributes):
    """x (n, 24) through one matrix of 24 x 10, and a bias."""
    g = Graph()
    weight = g.weight("fc.weight", 24, 10)
    if op == "Gemm":
        g.node("Gemm", ["x", weight, g.weight("fc.bias", 10)], **attributes)
    else:
        g.node("Add", [g.node("MatMul", ["x", weight]), g.weight("fc.bias", 10)])
    return read(g.save(folder / f"{op}.onnx", ["n", 24]))


def planned(model, bits, rank, activations=None):
    """A plan with codes for the layers' inputs, and factors for all layers."""
    plan = dataclasses.replace(make_plan(model, bits, activations), rounding="inputs")
    return lampq.low_rank(plan, [f"*={rank}"])


def factors_in(path, name):
    """A and B as the file holds them."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return tuple(
        tensors[f"{name}.{part}"].astype(np.float32) * tensors[f"{name}.{part}.scale"]
        for part in ("inner", "outer")
    )


@pytest.mark.parametrize("activations", [None, 4, 8])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_file_computes_codes_and_factors(tmp_path, op, activations):
    """Oracle: NumPy with the codes of a plan without factors and the factors that the file holds."""
    model, batch = product(tmp_path, op=op), batch_for(64, 24)
    plan = planned(model, 2, 3, activations)
    written = lampq.apply(model, plan, tmp_path / "q.onnx", batch=batch)
    inner, outer = factors_in(written.path, "fc")
    assert (inner.shape, outer.shape) == ((24, 3), (3, 10))
    plain = lampq.low_rank(plan, ["fc=0"])
    codes = with_rounding(model, "inputs", None, batch)
    lone = lampq.apply(
        codes,
        dataclasses.replace(
            plain,
            layers=tuple(
                dataclasses.replace(layer, activation_bits=None, activation_range=None)
                for layer in plain.layers
            ),
        ),
        tmp_path / "plain.onnx",
        batch=batch,
    )
    x = batch_for(20, 24, seed=3)
    zero = run(lone.path, np.zeros((1, 24), np.float32))
    weight = run(lone.path, np.eye(24, dtype=np.float32)) - zero
    seen = x if activations is None else ActivationGrid.from_range(-3.0, 3.0, activations).apply(x)
    expected = seen @ (weight + inner @ outer) + zero
    np.testing.assert_allclose(run(written.path, x), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("activations", [None, 8])
def test_factors_give_back_what_rounding_takes_and_their_bytes_count(tmp_path, activations):
    model, batch = product(tmp_path), batch_for(256, 24)
    truth = run(model.path, batch)
    errors, sizes = [], []
    for rank in (0, 2, 6, 10):
        plan = planned(model, 2, rank, activations)
        written = lampq.apply(model, plan, tmp_path / f"r{rank}.onnx", batch=batch)
        errors.append(float(np.square(run(written.path, batch) - truth).sum()))
        assert written.path.stat().st_size == written.plan.total_bytes
        sizes.append(written.plan.payload_bytes)
        codes = (24 * 10 * 2 + 7) // 8 + 4 * 10
        assert written.plan.payload_bytes == codes + rank * (24 + 10 + 8)
    assert sorted(errors, reverse=True) == errors
    # Ten factors undo it all but for the rounding of the factors and of the inputs.
    assert errors[-1] < (0.05 if activations else 1e-3) * errors[0]
    assert np.diff(sizes).tolist() == [factor_bytes((10, 24), rank) for rank in (2, 4, 4)]


def test_a_gemm_that_scales_its_product_scales_the_factors(tmp_path):
    model, batch = product(tmp_path, alpha=0.5, beta=2.0), batch_for(64, 24)
    written = lampq.apply(model, planned(model, 2, 10), tmp_path / "q.onnx", batch=batch)
    truth = run(model.path, batch)
    assert np.abs(run(written.path, batch) - truth).max() < 0.02 * np.abs(truth).max()


def test_the_simulation_of_a_plan_is_what_its_file_computes(tmp_path):
    model = read(transformer(tmp_path / "float.onnx", opset=20))
    batch = batch_for(8, 6, 16)
    plan = dataclasses.replace(make_plan(model, 3), rounding="corrected")
    ranked = lampq.low_rank(plan, ["*=2"])
    path = lampq.apply(model, ranked, tmp_path / "q.onnx", batch=batch).path
    expected = lampq.fake_quantize(model, ranked, batch=batch).run(batch)
    np.testing.assert_allclose(run(path, batch), np.asarray(expected), rtol=1e-3, atol=1e-4)
    with_rank, without = (
        lampq.evaluate(model, batch, plan=each, calibration=batch, reference=None).kl
        for each in (ranked, plan)
    )
    assert with_rank < without


def test_integer_kernels_stay_beside_factors(tmp_path, capfd):
    model = read(transformer(tmp_path / "float.onnx", opset=20))
    plan = planned(model, 4, 2, 8)
    written = lampq.apply(model, plan, tmp_path / "q.onnx", batch=batch_for(8, 6, 16))
    # What is known of new values alone is no part of the file, and nobody is told that it is not.
    assert capfd.readouterr() == ("", "")
    assert optimized_ops(written.path, tmp_path).count("MatMulIntegerToFloat") == 5
    plan.write(tmp_path / "plan.json")
    listing = lampq.inspect(tmp_path / "plan.json")
    assert [row[listing.columns.index("rank")] for row in listing.rows] == [2] * 5


def test_plans_keep_ranks_in_their_files(tmp_path):
    plan = planned(product(tmp_path), 4, 2)
    plan.write(tmp_path / "plan.json")
    again = lampq.Plan.read(tmp_path / "plan.json")
    assert again.to_json() == plan.to_json() and again.layers[0].rank == 2
    assert "rank" not in lampq.low_rank(plan, ["fc=0"]).to_json()["layers"][0]


def test_ranks_that_cannot_be_are_refused(tmp_path):
    model = product(tmp_path)
    plan = dataclasses.replace(make_plan(model, 4), rounding="inputs")
    with pytest.raises(PlanError, match=r"layer fc: factors of rank 11 .* from 1 to their smaller side"):
        lampq.low_rank(plan, ["fc=11"])
    with pytest.raises(PlanError, match="matches no layer"):
        lampq.low_rank(plan, ["fc2=1"])
    with pytest.raises(PlanError, match="write PATTERN=RANK"):
        lampq.low_rank(plan, ["fc=w4"])
    with pytest.raises(PlanError, match="they go with rounding inputs or corrected"):
        lampq.low_rank(make_plan(model, 4), ["fc=2"])
    with pytest.raises(RecordError, match="needs data"):
        lampq.apply(model, lampq.low_rank(plan, ["fc=2"]), tmp_path / "q.onnx")


def test_layers_that_are_no_products_with_a_matrix_have_no_place_for_factors(tmp_path):
    g = Graph()
    table = g.weight("table", 256, 24)
    rows = g.node("Gather", [table, "ids"])
    g.node("ReduceMean", [g.node("Add", [rows, "x"])], axes=[1], keepdims=0)
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", 3])
    model = read(g.save(tmp_path / "m.onnx", ["n", 3, 24], opset=17, inputs=[ids]))
    batch = {"x": batch_for(4, 3, 24), "ids": np.arange(12).reshape(4, 3) % 5}
    with pytest.raises(PlanError, match="no place for the factors of low rank that the plan has for table"):
        lampq.apply(model, planned(model, 4, 2), tmp_path / "q.onnx", batch=batch)
    with pytest.raises(RecordError, match="leave out what is no product with a matrix"):
        lampq.fake_quantize(model, planned(model, 4, 2), batch=batch)
    assert not (tmp_path / "q.onnx").exists()


def test_other_formats_refuse_factors_before_any_work(tmp_path):
    from tflite_models import linear

    rng = np.random.default_rng(0)
    path = linear(tmp_path / "m.tflite", rng.normal(size=(16, 24)).astype(np.float32))
    model = lampq.read(path)
    plan = planned(model, 4, 2)
    with pytest.raises(PlanError, match=r"no place for the factors .* in ONNX files"):
        lampq.apply(model, plan, tmp_path / "q.tflite", batch=batch_for(4, 24))
    coded = with_rounding(model, "inputs", None, batch_for(4, 24))
    with pytest.raises(AdapterError, match="no place for the low-rank factors of layer"):
        coded.write(plan, tmp_path / "q.tflite", calibration=batch_for(4, 24))


def test_the_command_line_adds_factors(tmp_path, capsys):
    model, batch = product(tmp_path), batch_for(32, 24)
    np.savez(tmp_path / "data.npz", x=batch)
    dataclasses.replace(make_plan(model, 2), rounding="inputs").write(tmp_path / "plan.json")
    words = [str(model.path), str(tmp_path / "plan.json"), "--data", str(tmp_path / "data.npz"), "--quiet"]
    out = tmp_path / "q.onnx"
    assert main(["apply", *words, "--low-rank", "*=2", "--low-rank", "fc=10", "-o", str(out)]) == 0
    assert factors_in(out, "fc")[0].shape == (24, 10)
    kls = []
    for more in ([], ["--low-rank", "fc=10"]):
        data = ["--data", str(tmp_path / "data.npz"), "--calib", str(tmp_path / "data.npz")]
        plan = ["--plan", str(tmp_path / "plan.json"), "--quiet", *more]
        capsys.readouterr()
        assert main(["eval", str(model.path), *data, *plan]) == 0
        said = capsys.readouterr().out
        kls.append(float(next(line for line in said.splitlines() if line.startswith("kl ")).split()[1]))
    assert kls[1] < 0.1 * kls[0]
