"""Configurations of other tools coming in: for the wrong model, with strange names and keys, malformed and damaged."""

import dataclasses
import json

import numpy as np
import pytest
import torchvision_ops  # noqa: F401
from command_line import run
from foreign_plans import OF_NAMES, OF_NODES, facts, given_plan, mixed_plan, onnx_model, profile, tflite_model  # noqa: F401
from onnx import helper
from onnx_graphs import make_plan
from onnx_models import graph, normal, saved
from records import make_profile
from tflite_models import plan_for as tflite_plan

from lampq import adapters
from lampq.conversions import FORMATS, exports, find, imports
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.plan import Plan
from lampq.verbs.convert import convert, read_foreign

# What comes in from outside.


@pytest.mark.parametrize("tool", OF_NAMES)
def test_a_configuration_for_another_model_is_refused(tool, profile, tmp_path):
    other = make_profile(1, kinds=("qkv", "head"))
    renamed = dataclasses.replace(
        other, layers=tuple(dataclasses.replace(x, name=f"other.{x.kind}") for x in other.layers)
    )
    path = tmp_path / "config"
    path.write_text(convert(mixed_plan(renamed, (4,)), tool, profile=renamed)[0])
    with pytest.raises(PlanError, match="another model"):
        read_foreign(path, tool, profile)


def test_strange_names_are_refused_and_can_be_left_out(profile, tmp_path):
    path = tmp_path / "widths.json"
    path.write_text('{"blocks.1.qkv": 3, "lm_head": 8}')
    with pytest.raises(
        PlanError, match=r"widths\.json: 1 names .* no layers of the profile \(lm_head\).*--partial"
    ):
        read_foreign(path, "json", profile)
    plan = read_foreign(path, "json", profile, partial=True)
    assert plan.widths == {"blocks.1.qkv": 3}
    assert any("lm_head" in note for note in plan.notes)
    assert any("9 layers stay float" in note for note in plan.notes)


def test_names_that_cannot_be_printed_leave_the_message_on_one_line(profile, tmp_path):
    path = tmp_path / "quanto.json"
    path.write_text(json.dumps({"a\nb\ud800": {"weights": "qint4"}, "c" * 3000: {"weights": "qint4"}}))
    with pytest.raises(PlanError) as caught:
        read_foreign(path, "quanto", profile)
    message = str(caught.value)
    assert "a\ufffdb\ufffd" in message
    assert len(message) < 500
    assert message.encode().isascii() is False


UNKNOWN = {
    "json": ({"blocks.1.qkv": {"weight_bits": 4, "owner": "me"}}, "blocks.1.qkv"),
    "torchao": (
        {
            "_type": "FqnToConfig",
            "_version": 1,
            "_data": {
                "fqn_to_config": {
                    "re:blocks.*": {
                        "_type": "IntxWeightOnlyConfig",
                        "_data": {"weight_dtype": {"_type": "torch.dtype", "_data": "int4"}},
                    }
                },
                "version": 7,
            },
        },
        "_data",
    ),
    "compressed-tensors": (
        {
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
            "kv_cache_scheme": {"num_bits": 8},
        },
        "kv_cache_scheme",
    ),
    "quanto": ({"blocks.1.qkv": {"weights": "qint4"}, "norm": {"weights": "none"}}, "norm"),
    "modelopt": (
        {
            "quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4}}],
            "algorithm": "awq_lite",
        },
        "algorithm",
    ),
    "aimet": (
        {"param_encodings": [{"name": "blocks.1.qkv.weight", "bw": 4, "dtype": "INT"}], "producer": "x"},
        "producer",
    ),
}


@pytest.mark.parametrize("tool", UNKNOWN)
def test_unknown_keys_are_kept_reported_and_written_again(tool, profile, tmp_path):
    data, key = UNKNOWN[tool]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    plan = read_foreign(path, tool, profile)
    assert plan.widths["blocks.1.qkv"] == 4
    assert any(key in note and "kept" in note for note in plan.notes)
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    if tool != "json":
        assert key in convert(again, tool, profile=profile)[0]


def test_tables_of_other_programs(profile, tmp_path):
    path = tmp_path / "bits.csv"
    path.write_text("\ufeffName,Bits,owner\r\nblocks.1.qkv,3,me\r\nblocks.2.proj,5,\r\n", encoding="utf-8")
    plan = read_foreign(path, "csv", profile)
    assert plan.widths == {"blocks.1.qkv": 3, "blocks.2.proj": 5}
    assert plan.provenance["foreign"] == {"csv": {"owner": {"blocks.1.qkv": "me"}}}


def test_names_count_before_patterns_and_patterns_before_classes(profile):
    def group(bits, *targets):
        return {"targets": list(targets), "weights": {"num_bits": bits, "type": "int"}}

    config = {
        "config_groups": {
            "a": group(4, "Linear"),
            "b": group(2, "blocks.1.qkv"),
            "c": group(3, "re:blocks[.][12].*"),
        },
        "ignore": ["blocks.0.patch_embed"],
    }
    plan = imports.import_plan(json.dumps(config), "compressed-tensors", Target.of(profile))
    assert "blocks.0.patch_embed" not in plan.widths
    assert [plan.widths[f"blocks.{n}"] for n in ("1.qkv", "2.proj", "3.fc1")] == [2, 3, 4]


def test_places_of_one_weight_must_agree(tmp_path):
    w = normal(16, 16) / 4
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="first"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w"], ["logits"], name="second"),
    ]
    built = graph(nodes, {"w": w}, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 16]})
    model = adapters.read(saved(built, tmp_path))
    text = convert(make_plan(model, 4), "ort-nbits", model=model)[0]
    assert set(json.loads(text)) == {"first", "second"}
    with pytest.raises(PlanError, match="different widths"):
        imports.import_plan('{"first": {"bits": 4}, "second": {"bits": 8}}', "ort-nbits", Target.of(model))


BAD = {
    "json": [
        "[]",
        "{",
        '{"blocks.1.qkv": 9}',
        '{"blocks.1.qkv": true}',
        '{"blocks.1.qkv": {}}',
        "[" * 100_000,
    ],
    "csv": [
        "",
        "a,b\n1,2\n",
        "layer,bits\nblocks.1.qkv\n",
        "layer,bits\nblocks.1.qkv,four\n",
        'layer,bits\n"x',
    ],
    "torchao": [
        "{}",
        '{"_type": "FqnToConfig", "_data": {"fqn_to_config": {"blocks.1.qkv": {"_type": "Float8"}}}}',
    ],
    "compressed-tensors": [
        "{}",
        '{"config_groups": {"g": {"targets": "Linear", "weights": {"num_bits": 4}}}}',
        '{"config_groups": {"g": {"targets": ["re:("], "weights": {"num_bits": 4}}}}',
        '{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float"}}}}',
    ],
    "quanto": ['{"blocks.1.qkv": {"weights": "qfloat8"}}', '{"blocks.1.qkv": 4}'],
    "modelopt": ["{}", '{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": [4, 3]}}]}'],
    "aimet": ["{}", '{"param_encodings": {"blocks.1.qkv.weight": [{"bitwidth": 4}, {"bitwidth": 8}]}}'],
}


@pytest.mark.parametrize(("tool", "text"), [(tool, text) for tool, texts in BAD.items() for text in texts])
def test_malformed_configurations(tool, text, profile):
    with pytest.raises(PlanError):
        imports.import_plan(text, tool, Target.of(profile))


@pytest.mark.parametrize("tool", ["ai-edge", "ort-nbits", "ort-qdq", "nncf"])
def test_configurations_of_files_need_the_file(tool, profile):
    with pytest.raises(PlanError, match="--model"):
        convert(mixed_plan(profile, (4,)), tool)


# The command line.


@pytest.fixture
def work(profile, tmp_path):
    profile.write(tmp_path / "profile.json")
    (arrays,) = tmp_path.glob("*.npz")
    (tmp_path / "arrays.npz").write_bytes(arrays.read_bytes())
    mixed_plan(profile, (2, 3, 8)).write(tmp_path / "plan.json")
    return tmp_path


def test_out_and_in_again(work, capfd):
    code, out, _ = run(capfd, "convert", work / "plan.json", "--to", "modelopt", "-o", work / "cfg.json")
    assert (code, out.strip()) == (0, str(work / "cfg.json"))
    words = ("convert", work / "cfg.json", "--from", "modelopt", "--plan", work / "plan.json")
    code, out, _ = run(capfd, *words, "-o", work / "again.json", "--json", "--quiet")
    assert code == 0 and json.loads(out)["layers"] == 10
    assert facts(Plan.read(work / "again.json")) == facts(Plan.read(work / "plan.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan.json", "--to", "quanto"], "cannot express"),
        (["plan.json", "--to", "quanto", "--fit"], "--profile"),
        (["plan.json", "--to", "json", "--plan", "plan.json"], "--plan goes with --from"),
        (["missing.json", "--from", "json", "--plan", "plan.json"], "no such file"),
        (["plan.json", "--from", "json"], "--model"),
        (["plan.json", "--from", "json", "--plan", "plan.json", "--profile", "profile.json"], "give one of"),
        (["plan.json"], "--to FORMAT"),
        (["missing.onnx"], "no such file"),
        (["plan.json", "--to", "ort-nbits"], "--model"),
        (["arrays.npz", "--from", "csv", "--plan", "plan.json"], "cannot be read as text"),
    ],
)
def test_bad_requests_leave_nothing(words, message, work, capfd, monkeypatch):
    monkeypatch.chdir(work)
    code, out, err = run(capfd, "convert", *words, "-o", "out.json")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out
    assert not (work / "out.json").exists()


def test_existing_outputs_are_kept(work, capfd):
    words = ("convert", work / "plan.json", "--to", "csv", "--quiet", "-o", work / "profile.json")
    code, _, err = run(capfd, *words)
    assert code == 2 and "--force" in err
    assert run(capfd, *words, "--force")[0] == 0


def test_recipes_are_those_of_the_adapter(tflite_model):
    from lampq.adapters.tflite.recipe import recipe

    plan = tflite_plan(tflite_model, lambda layer: 8)
    assert json.loads(convert(plan, "ai-edge", model=tflite_model)[0]) == recipe(tflite_model, plan)


JUNK = (None, True, 0, -3, 10**400, 1.5, "", "re:(", "*", [], {}, [[]], {"_data": None}, ["x"], {"x": 1})


def damaged(value, rng):
    """The same JSON value with one place of it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        return {**value, key: damaged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        index = int(rng.integers(len(value)))
        return [*value[:index], damaged(value[index], rng), *value[index + 1 :]]
    return JUNK[rng.integers(len(JUNK))]


@pytest.mark.parametrize("tool", sorted(set(FORMATS) - {"csv"}))
def test_damaged_configurations_are_read_or_refused(tool, profile, onnx_model, tflite_model):
    rng = np.random.default_rng(0)
    source = tflite_model if tool == "ai-edge" else onnx_model if tool in OF_NODES[:3] else profile
    target = Target.of(source)
    form = find(tool)
    plan = given_plan(target, [(max(form.WEIGHT_BITS), form.ACTIVATION_BITS[-1])] * len(target.layers))
    data = json.loads(exports.export(plan, tool, target))
    refused = 0
    for _ in range(120):
        text = json.dumps(damaged(data, rng))
        try:
            again = imports.import_plan(text, tool, target, partial=True)
            exports.export(again, tool, target)
        except PlanError:
            refused += 1
    assert refused > 5
