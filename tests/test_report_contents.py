"""What the report page is made of: figures, curves, pictures; without a browser."""

import base64
import dataclasses
import io
import json
import struct
import time

import numpy as np
import pytest
from PIL import Image
from records import make_profile, pair_profile
from report_cases import around, plan, profile  # noqa: F401

import lampq
from lampq.cli import main
from lampq.core.values.errors import PlanError
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.history import history_from_json
from lampq.core.values.option import Option
from lampq.core.values.plan import Neighbour
from lampq.core.values.tables import known_tables
from lampq.page import markup
from lampq.page.axis import linear, logarithmic
from lampq.page.document import MOST_BYTES, render
from lampq.page.findings import Findings
from lampq.page.heat import _picture
from lampq.page.png import encode
from lampq.verbs.report import surroundings


def test_the_line_is_of_plans_that_none_of_their_size_beats():
    pairs = pair_profile()
    around = surroundings(lampq.plan(pairs, average_bits=4), pairs)
    front = [(point.size_bytes, point.damage) for point in around.front]
    assert 2 < len(front) < len(around.curve)
    sizes, damages = zip(*front, strict=True)
    assert list(sizes) == sorted(set(sizes)) and list(damages) == sorted(set(damages), reverse=True)
    for point in around.curve:
        assert any(size <= point.size_bytes and damage <= point.damage for size, damage in front)


def test_thousands_of_layers_end_in_seconds(tmp_path):
    """Matching and listing every layer against every other took two minutes."""
    few, blocks = make_profile(2, kinds=("qkv", "proj", "fc1", "fc2"), samples=2, classes=2), 1000
    rng = np.random.default_rng(0)
    layers = tuple(
        dataclasses.replace(
            layer,
            name=f"layers.{block}.{layer.kind}",
            fingerprint=dataclasses.replace(layer.fingerprint, fourth=float(rng.exponential())),
        )
        for block in range(blocks)
        for layer in few.layers
    )
    tables = {name: np.tile(few.array(name), (blocks, 1)) for name in ("weight_error", "payload_bytes", "kl")}
    tables["kl"] = tables["kl"] * rng.uniform(0.1, 10, (len(layers), 1))
    profile = dataclasses.replace(few, layers=layers, tables=known_tables(**tables))
    plan = lampq.plan(profile, average_bits=3.5)
    begun = time.perf_counter()
    page = lampq.report(plan, tmp_path / "report.html", profile=profile)
    assert page.stat().st_size < MOST_BYTES
    assert time.perf_counter() - begun < 60


def test_more_layers_than_fit_are_cut_and_it_says_so(plan):
    layer = plan.layers[0]
    many = tuple(
        dataclasses.replace(layer, name=f"{i}{'ü' * 90}", predicted_kl=float(i), why="w" * 150)
        for i in range(3000)
    )
    text = render(Findings(plan=dataclasses.replace(plan, layers=many)))
    assert len(text.encode()) < MOST_BYTES
    assert "layers of greatest damage" in text
    assert "2999üü" in text and "<th scope=row>0üü" not in text
    kinds = tuple(dataclasses.replace(layer, name=str(i), kind=f"kind {i}") for i in range(1500))
    assert len(render(Findings(plan=dataclasses.replace(plan, layers=kinds))).encode()) < MOST_BYTES


def test_predictions_are_those_of_the_other_verbs(plan, profile, around):
    assert around.here.damage == pytest.approx(plan.predicted_kl, rel=1e-9)
    assert around.here.size_bytes == plan.total_bytes
    for bits, point in around.uniform.items():
        uniform = lampq.plan(profile, average_bits=bits, pins=[f"*={bits}"])
        assert (point.size_bytes, point.damage) == (uniform.total_bytes, pytest.approx(uniform.predicted_kl))
    damages = [point.damage for point in around.curve]
    assert damages == sorted(damages, reverse=True)
    assert min(
        point.damage for point in around.curve if point.size_bytes <= around.here.size_bytes
    ) == pytest.approx(around.here.damage, rel=0.02)
    # A plan's damage is what its layers lose alone and what all pairs add.
    alone, pairs = np.trace(around.pairs), np.triu(around.pairs, 1).sum()
    assert alone + pairs == pytest.approx(plan.predicted_kl, rel=1e-6)


@pytest.mark.parametrize("mode", ["superposition", "kl", "fisher", "lampq"])
def test_steps_are_what_plans_with_that_layer_moved_lose(profile, mode):
    plan = lampq.plan(profile, average_bits=4, mode=mode)
    around = surroundings(plan, profile)
    assert all(np.isfinite(point.damage) for point in (*around.curve, *around.uniform.values()))
    assert set(around.uniform) == set(range(2, 9))
    assert "this plan" in render(Findings(plan=plan, around=around))
    for index in (1, 4):
        widths = dict(plan.widths)
        step = around.wider[index]
        widths[plan.layers[index].name] = step.bits
        pins = [f"{name}={bits}" for name, bits in widths.items()]
        moved = lampq.plan(profile, average_bits=8, mode=mode, pins=pins)
        assert step.damage == pytest.approx(moved.predicted_kl - around.here.damage, abs=1e-9)
        assert step.bytes == moved.total_bytes - plan.total_bytes


def test_profiles_in_another_order_are_matched(plan, profile, around):
    order = np.random.default_rng(0).permutation(len(profile.layers))
    ours, theirs = around, surroundings(plan, profile.part(order))
    np.testing.assert_allclose(theirs.pairs, ours.pairs, rtol=1e-6, atol=1e-9)
    assert theirs.here.damage == pytest.approx(ours.here.damage)
    assert [step.bits for step in theirs.wider if step] == [step.bits for step in ours.wider if step]


def test_pairs_of_widths(profile, tmp_path):
    options = tuple(Option(weight_bits=bits, activation_bits=wide) for bits in (2, 4, 8) for wide in (4, 8))
    columns = [0, 0, 2, 2, 6, 6]
    activation = Gaussian(mean=np.zeros(1), std=np.ones(1), min=-np.ones(1), max=np.ones(1), count=8)
    pairs = dataclasses.replace(
        profile,
        layers=tuple(dataclasses.replace(layer, activation=activation) for layer in profile.layers),
        options=options,
        tables=known_tables(
            weight_error=profile.weight_error[:, columns],
            payload_bytes=profile.payload_bytes[:, columns],
            kl=profile.kl[:, columns] * np.array([1.5, 1] * 3),
        ),
    )
    plan = lampq.plan(pairs, average_bits=4)
    around = surroundings(plan, pairs)
    inputs = {layer.activation_bits for layer in plan.layers}
    assert inputs == {8}
    for bits, point in around.uniform.items():
        uniform = lampq.plan(pairs, average_bits=bits, pins=[f"*=w{bits}a8"])
        assert point.damage == pytest.approx(uniform.predicted_kl)
    for layer, narrower, wider in zip(plan.layers, around.narrower, around.wider, strict=True):
        assert narrower is None or narrower.bits == {4: 2, 8: 4}[layer.weight_bits]
        assert wider is None or wider.bits == {2: 4, 4: 8}[layer.weight_bits]
    page = lampq.report(plan, tmp_path / "report.html", profile=pairs).read_text()
    assert ">input</button>" in page


def test_another_rounding_is_told(plan, profile):
    assert surroundings(plan, profile.with_tables(logit_delta=None)).caveat == ""
    fitted = dataclasses.replace(plan, rounding="inputs", mode="kl")
    around = surroundings(fitted, profile.with_tables(logit_delta=None))
    assert "fitted to the layers’ inputs" in render(Findings(plan=fitted, around=around))


def test_the_next_plans_are_told(plan, tmp_path):
    cheaper = Neighbour(total_bytes=plan.total_bytes - 1234, average_bits=3.4, predicted_kl=0.25)
    page = lampq.report(dataclasses.replace(plan, cheaper=cheaper, dearer=None), tmp_path / "report.html")
    assert (
        "The next cheaper plan takes 1,234 bytes less and is predicted to lose 0.250 nats."
        in page.read_text()
    )


def test_odd_figures_of_a_file_make_a_page(plan):
    rng = np.random.default_rng(0)
    figures = (None, 0.0, -1.0, 1e308, -1e308, 1e-320, 0.5)
    for _ in range(200):
        pick = [figures[i] for i in rng.integers(len(figures), size=6)]
        steps = [{"number": 1, "predicted": pick[3], "measured": pick[4], "accepted": True}]
        history = history_from_json(steps)
        layers = (dataclasses.replace(plan.layers[0], predicted_kl=pick[5]), *plan.layers[1:])
        odd = dataclasses.replace(
            plan, predicted_kl=pick[0], bound=pick[1], measured_kl=pick[2], history=history, layers=layers
        )
        assert "nan" not in render(Findings(plan=odd))


def test_foreign_profiles_are_refused(plan, profile, tmp_path):
    with pytest.raises(PlanError, match="not of the plan's model"):
        lampq.report(plan, tmp_path / "report.html", profile=make_profile(4))
    narrow = make_profile(3, widths=(2, 8))
    with pytest.raises(PlanError, match=r"the profile has no \d bits"):
        lampq.report(plan, tmp_path / "report.html", profile=narrow)
    assert list(tmp_path.iterdir()) == []


def test_without_data_the_axis_does_not_speak_of_nats(tmp_path):
    profile = make_profile(5, data=False)
    plan = lampq.plan(profile, average_bits=4)
    text = lampq.report(plan, tmp_path / "report.html", profile=profile).read_text()
    assert "predicted damage, relative weight error" in text


def test_the_command(plan, profile, tmp_path, capfd):
    plan.write(tmp_path / "plan.json")
    profile.write(tmp_path / "profile.json")
    words = ["report", str(tmp_path / "plan.json"), "-o", str(tmp_path / "report.html")]
    assert main([*words, "--profile", str(tmp_path / "profile.json"), "--json"]) == 0
    out, _ = capfd.readouterr()
    assert json.loads(out)["bytes"] == (tmp_path / "report.html").stat().st_size
    assert main(words) == 2
    assert "--force" in capfd.readouterr().err
    assert main([*words, "--force", "--quiet"]) == 0
    assert main(["report", str(tmp_path / "profile.json"), "-o", str(tmp_path / "x.html")]) == 2
    assert "this is a profile" in capfd.readouterr().err


def test_pictures_decode_to_what_was_encoded():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 5, (7, 3)).astype(np.uint8)
    palette = rng.integers(0, 256, (5, 4)).astype(np.uint8)
    image = Image.open(io.BytesIO(encode(indices, palette))).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(image), palette[indices])


def test_the_map_of_a_large_model_is_averaged():
    pairs = np.random.default_rng(0).normal(size=(1000, 1000))
    pairs += pairs.T
    picture, blocks = _picture(pairs, float(np.abs(pairs).max()))
    assert len(blocks) == 160 and blocks[0][0] == 0 and blocks[-1][1] == 1000
    width, height = struct.unpack(">II", base64.b64decode(picture)[16:24])
    assert (width, height) == (160, 160)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-12, "1.00e-12"), (-0.5, "−0.500"), (-1e-9, "−1.00e-9"), (float("nan"), "–"), (True, "–"),
     ("x", "–"),      (1234567.0, "1.23e6"), (999.9, "1000")],
)  # fmt: skip
def test_numbers(value, text):
    assert markup.number(value) == text


@pytest.mark.parametrize(
    "values", [[5.0], [0.0], [1.0, 1.0 + 1e-12], [1e-9, 1e9], [3.0, 7.0], [0.011, 0.012], [1e308, 1e-308]]
)
def test_axes_hold_their_values_and_have_ticks(values):
    axes = [linear(values, str), linear(values, str, zero=True)]
    if min(values) > 0:
        axes.append(logarithmic(values, str))
    for axis in axes:
        assert all(0 <= axis.place(value) <= 1 for value in values)
        assert all(axis.low - 1e-9 <= tick <= axis.high * (1 + 1e-9) for tick in axis.ticks)
        assert len(axis.ticks) <= 12
    assert axes[0].ticks


def test_inputs_of_16_bits_are_on_the_curve(tmp_path):
    profile = pair_profile(2, weights=(3, 4), inputs=(8, 16))
    plan = lampq.plan(profile, average_bits=3.5)
    lampq.report(plan, tmp_path / "r.html", profile=profile)
    sweep = surroundings(plan, profile).sweep
    widest = [sweep.options[option].activation_bits for option in sweep.choices[-1]]
    assert widest == list(lampq.sweep(profile)[-1].input_widths)
    assert 16 in widest
