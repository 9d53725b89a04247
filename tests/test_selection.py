"""Layers that stay float: chosen once, known to profiles and plans, and left alone by whatever is written."""

import dataclasses

import numpy as np
import pytest
from two_inputs_model import TwoInputsModel, samples

import lampq
from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.selection import KeptLayer, Selection

NAMES = ("image.fc1", "text.fc1", "head", "boxes", "embed")


def profile(**choices):
    return lampq.profile(TwoInputsModel(), samples(), bits=(2, 4, 8), fisher_draws=0, **choices)


@pytest.mark.parametrize(
    ("keep", "only", "left"),
    [
        ((), (), NAMES),
        (("head",), (), ("image.fc1", "text.fc1", "boxes", "embed")),
        (("*.fc1",), (), ("head", "boxes", "embed")),
        ((), ("fc1",), ("image.fc1", "text.fc1", "boxes", "embed")),
        (("text.*",), ("{image,text}.fc1",), ("image.fc1",)),
    ],
)
def test_patterns_of_names_and_kinds_select(keep, only, left):
    layers = TwoInputsModel().layers()
    chosen, kept = Selection(keep=keep, only=only).split(layers)
    assert tuple(layer.name for layer in chosen) == left
    assert sorted((*left, *(layer.name for layer in kept))) == sorted(NAMES)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(keep=("nothing",)), "matches no layer"),
        (Selection(only=("nothing",)), "matches no layer"),
        (Selection(keep=("*",)), "all 5 layers are kept float"),
        (Selection(keep=("head",), only=("head",)), "all 5 layers are kept float"),
    ],
)
def test_selections_that_are_refused(selection, message):
    with pytest.raises(PlanError, match=message):
        selection.split(TwoInputsModel().layers())


def test_kept_layers_are_no_layers_and_count_as_the_rest():
    whole, part = profile(), profile(keep=["head", "embed"])
    assert [layer.name for layer in part.layers] == ["image.fc1", "text.fc1", "boxes"]
    assert {layer.name: layer.why for layer in part.kept} == {
        "head": "kept by --keep head",
        "embed": "kept by --keep embed",
    }
    assert part.rest_bytes - whole.rest_bytes == 4 * (5 * 8 + 6 * 8)
    np.testing.assert_allclose(part.kl, whole.kl[[0, 1, 3]])


def test_a_plan_says_what_is_kept_and_applies_without_partial(tmp_path):
    model = TwoInputsModel()
    plan = lampq.plan(profile(keep=["head"]), average_bits=4)
    plan.write(tmp_path / "plan.json")
    again = lampq.Plan.read(tmp_path / "plan.json")
    assert [layer.name for layer in again.kept] == ["head"]
    assert again.kept[0].fingerprint.matches(plan.kept[0].fingerprint)
    lampq.apply(model, again, tmp_path / "out.numpy")
    assert [layer.name for layer in model.writes[0].layers] == ["image.fc1", "text.fc1", "boxes", "embed"]
    assert lampq.match(again, model).matching.complete
    listing = lampq.inspect(tmp_path / "plan.json")
    assert listing.facts["kept float"] == ["head"]


def test_a_profile_remembers_what_is_kept(tmp_path):
    made = profile(only=["*.fc1"])
    made.write(tmp_path / "p.json")
    read = lampq.Profile.read(tmp_path / "p.json")
    assert [layer.why for layer in read.kept] == [layer.why for layer in made.kept]
    assert [layer.name for layer in read.kept] == ["head", "boxes", "embed"]
    with pytest.raises(RecordError, match="keep different layers float"):
        lampq.merge([dataclasses.replace(read, kept=read.kept[:1]), read])


def test_without_what_is_kept_the_plan_is_of_another_model(tmp_path):
    plan = dataclasses.replace(lampq.plan(profile(keep=["head"]), average_bits=4), kept=())
    with pytest.raises(PlanError, match=r"1 layers of the model have no match \(head\)"):
        lampq.apply(TwoInputsModel(), plan, tmp_path / "out.numpy")


def test_a_fused_weight_is_kept_whole_or_not_at_all(tmp_path):
    rng = np.random.default_rng(0)
    parts = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("q", "k", "v")}
    plan = lampq.plan(profile(), average_bits=4)
    apart, fused = (
        TwoInputsModel(weights) for weights in (parts, {"qkv": np.concatenate([*parts.values()])})
    )
    layers = [
        dataclasses.replace(
            plan.layers[0], name=x.name, fingerprint=x.fingerprint, shape=x.shape, size=x.size
        )
        for x in apart.layers()
    ]
    kept = tuple(KeptLayer(name=x.name, size=x.size, fingerprint=x.fingerprint) for x in apart.layers())
    some = dataclasses.replace(plan, layers=tuple(layers[:2]), kept=kept[2:])
    with pytest.raises(PlanError, match="keeps only some of its parts float"):
        lampq.apply(fused, some, tmp_path / "out.numpy")


def test_a_budget_in_bytes_counts_what_is_kept():
    plan = lampq.plan(profile(keep=["head"]), size_bytes=800)
    assert plan.total_bytes <= 800
    assert plan.rest_bytes == 100 + 4 * 40
