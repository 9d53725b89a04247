"""Factors of low rank as options beside the width: measured, counted, chosen and written like any other."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest
from onnx_graphs import Graph, batch_for, network, run, transformer
from report_cases import plans_of, values_of

import lampq
from lampq.adapters.onnx.reader import read
from lampq.cli import main
from lampq.core.allocating.allocation import build_plan
from lampq.core.allocating.limits import bit_operations
from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing.low_rank import compensate
from lampq.core.quantizing.quantizer import as_rows, from_rows
from lampq.core.values.errors import AdapterError, PlanError, RecordError
from lampq.core.values.option import all_options, neighbours, parse_ranks
from lampq.core.values.option_order import cover_table
from lampq.core.values.shard import Shard

BITS, RANKS = (2, 3, 4), (0, 1, 3)


def layered(folder, seed=0):
    """Three products with matrices behind one another, one of them a Gemm with its weight turned."""
    g = Graph(seed)
    first = g.node("Relu", [g.node("MatMul", ["x", g.weight("first", 12, 20)])])
    second = g.node("Relu", [g.node("Gemm", [first, g.weight("second", 16, 20)], transB=1)])
    g.node("MatMul", [second, g.weight("third", 16, 6)])
    return read(g.save(folder / f"layered{seed}.onnx", ["n", 12]))


def inputs(count=48, seed=1):
    """Samples that lie near a plane, so that a factor of rank 1 or 2 gives back much."""
    rng = np.random.default_rng(seed)
    near = rng.normal(size=(count, 2)) @ np.random.default_rng(7).normal(size=(2, 12))
    return (near + 0.1 * rng.normal(size=(count, 12))).astype(np.float32)


def profiled(model, batch, **choices):
    usual = {"bits": BITS, "ranks": RANKS, "rounding": "inputs", "measure": "differences"}
    return lampq.profile(model, batch, **{**usual, **choices})


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    model = layered(tmp_path_factory.mktemp("ranks"))
    batch = inputs()
    return model, batch, profiled(model, batch)


def choices_of(profile, count, seed=0):
    """Choices among what layers may take, at random, shape (L,)."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.array([rng.choice(np.flatnonzero(row)) for row in profile.available])


def test_every_option_is_measured_with_the_factors_it_has(case):
    """Oracle: codes from the encoder, factors cut to their error, the layer run in the model's place."""
    model, batch, profile = case
    coded = with_rounding(model, "inputs", None, batch)
    reference = measure_reference(model, batch)
    for index, layer in enumerate(profile.layers):
        rows = as_rows(model.weight(layer.name), layer.channel_axis)
        for column, option in enumerate(profile.options):
            values = encoder(coded, layer.name, layer.channel_axis, BITS)(option.weight_bits).dequantized()
            if option.rank:
                moment = coded.coding.moments[layer.name]
                values = values + compensate(rows - values, moment, option.rank).product()
            weight = from_rows(values, layer.shape, layer.channel_axis)
            outputs = model.with_weights({layer.name: weight}).run(batch)
            assert profile.kl[index, column] == pytest.approx(reference.damage(outputs), rel=1e-4, abs=1e-9)
            error = np.square(values.astype(np.float64) - rows).sum()
            assert profile.weight_error[index, column] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("solver", ["exact", "scipy"])
def test_the_solver_finds_the_best_of_all_widths_and_ranks(case, solver):
    """Oracle: brute force over all 9^3 plans, the damage of an option the least of all it covers."""
    _, _, profile = case
    # What layers share in a file is set aside before the search, and no sum over layers.
    profile = profile.with_tables(shared_bytes=None, shares=None)
    covers = cover_table(profile.options)
    kl = np.stack([profile.kl[:, row].min(axis=1) for row in covers], axis=1)
    plans = [np.array(choice) for choice in itertools.product(range(9), repeat=3)]
    sizes = np.array([profile.total_bytes(choice) for choice in plans])
    damages = np.array([kl[np.arange(3), choice].sum() for choice in plans])
    with_factors = 0
    for size in np.quantile(sizes, [0.05, 0.2, 0.4, 0.6, 0.9]).astype(int).tolist():
        plan = lampq.plan(profile, size_bytes=size, mode="kl", solver=solver)
        assert plan.total_bytes <= size
        assert plan.predicted_kl == pytest.approx(damages[sizes <= size].min(), rel=1e-9)
        with_factors += sum(layer.rank > 0 for layer in plan.layers)
    assert with_factors


@pytest.mark.parametrize("make", [layered, lambda folder: read(transformer(folder / "t.onnx", opset=20))])
def test_files_take_the_bytes_that_plans_say(tmp_path, make):
    model = make(tmp_path)
    batch = inputs() if len(model.input_specs[0].shape) == 2 else batch_for(24, 6, 16)
    # Not every layer can have factors of rank 8.
    profile = profiled(model, batch, ranks=(1, 8))
    for number, choice in enumerate(choices_of(profile, 6)):
        plan = build_plan(profile, choice, mode="kl", budget={})
        assert any(layer.rank for layer in plan.layers)
        out = lampq.apply(model, plan, tmp_path / f"{number}.onnx", batch=batch)
        assert out.path.stat().st_size == plan.total_bytes == profile.total_bytes(choice)
        assert out.plan.payload_bytes == plan.payload_bytes


def test_what_is_planned_is_what_the_file_computes(case, tmp_path):
    model, batch, profile = case
    (choice,) = choices_of(profile, 1, seed=3)
    plan = build_plan(profile, choice, mode="kl", budget={})
    assert any(layer.rank for layer in plan.layers)
    path = lampq.apply(model, plan, tmp_path / "q.onnx", batch=batch).path
    simulated = lampq.fake_quantize(model, plan, batch=batch).run(batch)
    np.testing.assert_allclose(run(path, batch), np.asarray(simulated), rtol=1e-3, atol=1e-4)
    judged = lampq.evaluate(model, batch, plan=plan, calibration=batch, reference=None).kl
    written = lampq.evaluate(read(path), batch, reference=model).kl
    assert written == pytest.approx(judged, rel=1e-3, abs=1e-7)


def test_gradients_tell_of_ranks_what_differences_do(case):
    pytest.importorskip("torch")
    model, batch, profile = case
    sensed = profiled(model, batch, measure="gradients", bits=(3, 4))
    columns = [profile.options.index(option) for option in sensed.options]
    np.testing.assert_allclose(sensed.kl, profile.kl[:, columns], rtol=0.35, atol=1e-5)
    assert sensed.interacts


def test_profiles_and_plans_keep_ranks_in_their_files(case, tmp_path):
    _, _, profile = case
    profile.write(tmp_path / "p.json")
    again = lampq.Profile.read(tmp_path / "p.json")
    assert again.options == profile.options
    assert np.array_equal(again.payload_bytes, profile.payload_bytes)
    size = int(0.5 * (profile.total_bytes(np.zeros(3, int)) + profile.total_bytes(np.full(3, 8))))
    plan = lampq.plan(again, size_bytes=size)
    plan.write(tmp_path / "plan.json")
    assert lampq.Plan.read(tmp_path / "plan.json").to_json() == plan.to_json()
    listing = lampq.inspect(tmp_path / "p.json")
    assert "w2r3" in str(listing.columns) + str(listing.rows)


def test_files_without_ranks_are_as_they_were(case, tmp_path):
    """So that earlier versions read them, and theirs are read here."""
    model, batch, _ = case
    profiled(model, batch, ranks=(0,)).write(tmp_path / "p.json")
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["options"] == [{"weight_bits": bits, "activation_bits": None} for bits in BITS]
    assert [option.rank for option in lampq.Profile.read(tmp_path / "p.json").options] == [0, 0, 0]
    data["options"][1]["rank"] = -1
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(RecordError, match="rank"):
        lampq.Profile.read(tmp_path / "p.json")


def test_shards_merge_into_the_whole(case):
    model, batch, profile = case
    parts = [profiled(model, batch, shard=Shard(index=index, count=2)) for index in (1, 2)]
    merged = lampq.merge(parts)
    assert merged.options == profile.options
    np.testing.assert_allclose(merged.kl, profile.kl, rtol=1e-5, atol=1e-9)
    assert np.array_equal(merged.payload_bytes, profile.payload_bytes)


def test_average_bits_and_bit_operations_count_factors(case):
    """Oracle: both matrices beside a weight of C x N hold rank * (C + N) numbers of 8 bits."""
    _, _, profile = case
    weights = sum(layer.size for layer in profile.layers)
    for choice in choices_of(profile, 4):
        plan = build_plan(profile, choice, mode="kl", budget={})
        bits = sum(x.size * x.weight_bits + 8 * x.rank * sum(x.shape) for x in plan.layers)
        assert plan.average_bits == profile.average_bits(choice) == pytest.approx(bits / weights)
        taken = bit_operations(profile)[np.arange(3), choice].sum()
        macs = {layer.name: layer.macs // layer.size for layer in profile.layers}
        expected = sum(
            macs[x.name] * (x.size * x.weight_bits + 8 * x.rank * sum(x.shape)) * 32 for x in plan.layers
        )
        assert taken == expected
    for budget in (2.5, 3.1, 4.7):
        assert lampq.plan(profile, average_bits=budget).average_bits <= budget
    for point in lampq.sweep(profile, mode="kl"):
        (choice,) = [[profile.options.index(option) for option in point.options]]
        assert point.average_bits == pytest.approx(profile.average_bits(np.array(choice)))


def test_uniform_plans_and_the_published_method_have_no_factors(case):
    _, _, profile = case
    traced = dataclasses.replace(
        profile, layers=tuple(dataclasses.replace(layer, fisher=1.0) for layer in profile.layers)
    )
    plan = lampq.plan(traced, average_bits=3.4, mode="lampq")
    assert all(layer.rank == 0 for layer in plan.layers)
    narrow = lampq.plan(profile, average_bits=2.0)
    assert {(layer.weight_bits, layer.rank) for layer in narrow.layers} == {(2, 0)}


def test_layers_without_a_place_for_factors_have_none(tmp_path):
    model = read(network(tmp_path / "n.onnx"))
    profile = profiled(model, batch_for(8, 3, 8, 8))
    ranked = np.array([option.rank > 0 for option in profile.options])
    for layer, row in zip(profile.layers, profile.available, strict=True):
        assert row[~ranked].all()
        assert row[ranked].tolist() == [layer.name == "head"] * ranked.sum()


def test_ranks_beyond_a_layer_are_not_offered_to_it(tmp_path):
    profile = profiled(layered(tmp_path), inputs(), bits=(3,), ranks=(6, 7))
    assert [option.to_text() for option in profile.options] == ["w3", "w3r6", "w3r7"]
    # The third layer has six outputs.
    assert profile.available.tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_what_cannot_have_factors_is_refused_before_anything_is_measured(case, tmp_path):
    model, batch, _ = case
    for choices, message in (
        ({"rounding": "nearest"}, "ranks go with rounding inputs or corrected"),
        ({"refine": 10}, "codes that are not learned"),
        ({"act_bits": 8}, "leave out --act-bits"),
        ({"ranks": (-1,)}, "a rank is 0 or more"),
    ):
        with pytest.raises(RecordError, match=message):
            profiled(model, batch, **choices)
    with pytest.raises(RecordError, match="needs data"):
        profiled(model, None)


def test_a_rank_that_no_layer_takes_is_refused_with_the_largest(tmp_path):
    model = lampq.read(transformer(tmp_path / "m.onnx"))
    with pytest.raises(
        AdapterError, match=r"no layer of m\.onnx takes factors of rank 500: give --ranks of at most 16"
    ):
        lampq.profile(model, batch_for(4, 6, 16), ranks=(2, 500), rounding="inputs")


@pytest.mark.parametrize("verb", ["profile", "quantize"])
def test_formats_without_a_place_for_factors_refuse_ranks(tmp_path, verb, capsys):
    from tflite_models import linear

    path = linear(tmp_path / "m.tflite", np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32))
    np.savez(tmp_path / "x.npz", x=batch_for(4, 24))
    words = [verb, str(path), "--data", str(tmp_path / "x.npz"), "--ranks", "0,2", "--rounding", "inputs"]
    more = ["--avg-bits", "4", "-o", "q.tflite"] if verb == "quantize" else ["-o", "p.json"]
    assert main([*words, *more[:-1], str(tmp_path / more[-1]), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "m.tflite has no place for factors of low rank" in said and said.count("\n") == 1
    with pytest.raises(AdapterError, match="export the model to ONNX"):
        lampq.profile(lampq.read(path), batch_for(4, 24), ranks=(1,), rounding="inputs")


def test_quantize_chooses_writes_and_tells_ranks(case, tmp_path, capsys):
    model, batch, _ = case
    np.savez(tmp_path / "x.npz", x=batch)
    data, out = ["--data", str(tmp_path / "x.npz")], tmp_path / "q.onnx"
    profile, plan = tmp_path / "p.json", tmp_path / "plan.json"
    words = [str(model.path), *data, "--bits", "2-4", "--ranks", "1,3", "--rounding", "inputs", "--quiet"]
    assert main(["profile", *words, "-o", str(profile)]) == 0
    assert main(["plan", str(profile), "--avg-bits", "4.5", "-o", str(plan), "--quiet"]) == 0
    ranks = [layer.rank for layer in lampq.Plan.read(plan).layers]
    assert any(ranks)
    assert main(["apply", str(model.path), str(plan), *data, "-o", str(out), "--quiet"]) == 0
    assert out.stat().st_size == lampq.Plan.read(plan).total_bytes
    for more in (
        ["inspect", str(plan), "--why", "--profile", str(profile)],
        ["compare", str(plan), str(plan)],
    ):
        assert main(more) == 0
    said = "".join(capsys.readouterr())
    assert all(f"r{rank}" in said for rank in ranks if rank)
    table = tmp_path / "sweep.csv"
    assert main(["sweep", str(profile), "-o", str(table), "--quiet"]) == 0
    rows = list(csv.reader(table.read_text().splitlines()))
    assert any("r" in cell for row in rows[1:] for cell in row)
    page = tmp_path / "r.html"
    assert main(["report", str(plan), "--profile", str(profile), "-o", str(page), "--quiet"]) == 0
    assert "rank of the factors" in page.read_text()
    written = tmp_path / "best.onnx"
    made = lampq.quantize(
        model, batch, written, average_bits=4.5, bits=BITS, ranks=RANKS, measure="differences"
    )
    assert written.stat().st_size == made.total_bytes and made.average_bits <= 4.5


def test_reports_tell_plans_of_the_curve_apart_by_rank(case, tmp_path):
    _, _, profile = case
    plan = lampq.plan(profile, average_bits=4.5)
    values = values_of(lampq.report(plan, tmp_path / "r.html", profile=profile))
    assert values["options"] == [[o.weight_bits, None, o.rank] for o in profile.options]
    assert values["factors"] == [8 * sum(layer.shape) for layer in profile.layers]
    plans, swept = plans_of(values).tolist(), lampq.sweep(profile)
    assert plans[values["start"]] == [profile.options.index(layer.option) for layer in plan.layers]
    curve = [list(map(profile.options.index, point.options)) for point in swept]
    assert [choice for choice in plans if choice in curve] == curve


def test_plans_with_ranks_need_a_profile_with_them(case, tmp_path):
    model, batch, profile = case
    plain = profiled(model, batch, ranks=(0,))
    plan = lampq.plan(profile, average_bits=4.5)
    with pytest.raises(PlanError, match="with factors of rank"):
        lampq.report(plan, tmp_path / "r.html", profile=plain)


def test_ranks_are_read_from_text_and_ordered():
    assert parse_ranks("0, 4,1") == (0, 1, 4)
    for text in ("", "1-4", "-1", "²"):
        with pytest.raises(RecordError, match="write whole numbers"):
            parse_ranks(text)
    options = all_options((2, 3), ranks=(0, 1, 4))
    assert list(options) == sorted(options, reverse=True)[::-1]
    covers = cover_table(options)
    # w3r1 covers w2, w2r1, w3 and itself.
    assert covers[4].tolist() == [True, True, False, True, True, False]
    assert neighbours(options)[4].tolist() == [False, True, False, True, True, True]
