"""The schemas, the check that reads them, and the readers say the same of every file, whole or damaged."""

import copy
import dataclasses
import json

import jsonschema
import numpy as np
import pytest
from format_tables import DOCUMENT, tables
from records import make_profile

import lampq
from lampq.core.values.errors import LampqError, PlanError, RecordError
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.history import Round
from lampq.core.values.schema import check
from lampq.core.values.shard import Shard

WORDS = {"type", "const", "enum", "minimum", "maximum", "minLength", "pattern", "minItems", "maxItems"}
STRUCTURE = {
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "title",
    "description",
    "required",
    "properties",
    "items",
    "anyOf",
}
VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 8, 9, 4096, 4097, 2.5, 3.0, 1e999, -0.5, "", "x", "s1:", "int8", "lampq.plan/1",
    "a" * 64, "qkv", [], [1], [1, 2], [1.5, "x"], [None, 1], [True, False], {}, {"a": 1}, {"weight_bits": 3}, 10**30,
)  # fmt: skip


def make_plan():
    profile = make_profile(0)
    limits = lampq.Budget(
        average_bits=4,
        size_bytes=10**6,
        max_bops=10**12,
        at_most=("9@8",),
        floors=("qkv=2",),
        ceilings=("qkv=8",),
    )
    plan = lampq.plan(profile, budget=limits, mode="kl", pins=["head=8"], ties=["blocks.{1,5}.qkv"])
    first = dataclasses.replace(plan.layers[0], activation_bits=8, activation_range=(-1.0, 2.0))
    return dataclasses.replace(
        plan,
        layers=(first, *plan.layers[1:3]),
        measured_kl=0.1,
        notes=("a note",),
        history=(Round(number=0, measured=0.2),),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plan file and a profile file, parsed."""
    folder = tmp_path_factory.mktemp("files")
    profile = make_profile(0, kinds=("qkv", "proj", "head"))
    activation = Gaussian(mean=np.zeros(1), std=np.ones(1), min=-np.ones(1), max=np.ones(1), count=4)
    layer = dataclasses.replace(profile.layers[0], activation=activation, shares=("other",))
    profile = dataclasses.replace(profile, layers=(layer, *profile.layers[1:]), shard=Shard(index=2, count=4))
    profile.write(folder / "profile.json")
    make_plan().write(folder / "plan.json")
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("plan", "profile")}


def accepts(data, name):
    try:
        check(data, name)
    except RecordError:
        return False
    return True


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


def damaged(data, rng):
    """A copy with one to three places replaced or taken out."""
    data = copy.deepcopy(data)
    for _ in range(int(rng.integers(1, 4))):
        # Long lists of statistics would otherwise take all the damage.
        spots = [path for path in places(data) if path and not (isinstance(path[-1], int) and path[-1] > 2)]
        path = spots[int(rng.integers(len(spots)))]
        holder = data
        for step in path[:-1]:
            holder = holder[step]
        if rng.random() < 0.25:
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return data


@pytest.mark.parametrize("name", ["plan", "profile"])
def test_the_check_agrees_with_a_complete_implementation(files, name):
    validator = jsonschema.Draft202012Validator(lampq.schema(name))
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(2500):
        data = damaged(files[name], rng)
        verdicts.append(validator.is_valid(data))
        assert accepts(data, name) == verdicts[-1], data
    # Both verdicts are common, or the test would say little.
    assert 0.1 < np.mean(verdicts) < 0.9


@pytest.mark.parametrize("name", ["plan", "profile"])
def test_whole_files_conform_and_every_field_is_described(files, name):
    schema = lampq.schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(files[name], schema)
    check(files[name], name)

    def described(value, rule):
        for choice in rule.get("anyOf", ()):
            rule = {**rule, **choice} if "$ref" in choice else rule
        if "$ref" in rule:
            rule = {**schema["$defs"][rule["$ref"].removeprefix("#/$defs/")], **rule}
        if isinstance(value, list):
            for entry in value:
                described(entry, rule.get("items", {}))
        if isinstance(value, dict) and "properties" in rule:
            assert set(value) <= set(rule["properties"]), "a field that the schema does not describe"
            for key, entry in value.items():
                described(entry, rule["properties"][key])

    described(files[name], schema)


def test_readers_refuse_what_the_schema_refuses(files, tmp_path):
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        data = damaged(files["plan"], rng)
        if accepts(data, "plan"):
            continue
        refused += 1
        with pytest.raises(PlanError):
            lampq.Plan.from_json(data)
    assert refused > 300
    for _ in range(60):
        data = damaged(files["profile"], rng)
        if not accepts(data, "profile"):
            (tmp_path / "profile.json").write_text(json.dumps(data))
            with pytest.raises(LampqError):
                lampq.Profile.read(tmp_path / "profile.json")


@pytest.mark.parametrize("name", ["plan", "profile"])
def test_schemas_use_only_the_words_that_the_check_knows(name):
    def visit(rule):
        assert set(rule) <= WORDS | STRUCTURE
        # `items` and `properties` hold rules, the other words hold values.
        for inner in (
            *rule.get("properties", {}).values(),
            *rule.get("$defs", {}).values(),
            *rule.get("anyOf", ()),
        ):
            visit(inner)
        if "items" in rule:
            visit(rule["items"])

    visit(lampq.schema(name))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("layers", 1, "weight_bits"), "3", "layers[1].weight_bits is \"3\"; expected integer"),
        (("layers", 1, "weight_bits"), 9, "layers[1].weight_bits is 9; expected at most 8"),
        (("container",), "zip", "container is \"zip\"; expected one of bitplane, int8"),
        (("notes",), [1], "notes[0] is 1; expected string"),
        (("layers",), [], "layers is []; expected at least 1 entries"),
        (("layers", 0, "activation_range"), [1, 2, 3], "activation_range is [1, 2, 3]; expected at most 2 entries"),
    ],
)  # fmt: skip
def test_messages_name_the_place(files, path, value, message):
    data = copy.deepcopy(files["plan"])
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    with pytest.raises(PlanError) as error:
        lampq.Plan.from_json(data)
    assert message in str(error.value)


def test_a_missing_field_is_named(files):
    data = copy.deepcopy(files["plan"])
    del data["layers"][2]["kind"]
    with pytest.raises(PlanError, match=r"layers\[2\]: 'kind' is missing"):
        lampq.Plan.from_json(data)


def test_unknown_names_of_schemas_are_refused():
    with pytest.raises(RecordError, match="plan and profile"):
        lampq.schema("model")


def test_the_schema_handed_out_is_the_callers_own():
    lampq.schema("plan").clear()
    assert lampq.schema("plan")["title"] == "lampq plan"


def test_the_document_holds_the_tables_of_the_schemas():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("plan", "profile"):
        assert tables(name) in text, "run: python tests/format_tables.py"


def test_large_profiles_are_checked_quickly():
    numbers = np.random.default_rng(0).normal(size=4096).tolist()
    statistics = {"mean": numbers, "std": numbers, "min": numbers, "max": numbers, "count": 4}
    layer = {
        "name": "x",
        "kind": "qkv",
        "shape": [4],
        "channel_axis": 0,
        "size": 4,
        "fingerprint": "s1:",
        "weight": statistics,
    }
    data = {
        "schema": "lampq.profile/1",
        "provenance": {},
        "samples": 0,
        "container": "int8",
        "rest_bytes": 0,
        "options": [{"weight_bits": 2}],
        "arrays": {"file": "x", "sha256": "0" * 64},
        "layers": [layer] * 200,
    }
    check(data, "profile")
