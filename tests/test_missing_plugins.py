"""Plans that need what this installation lacks: a quantizer of a package that is not here, or of another format."""

import dataclasses

import pytest
from numpy_model import NumpyModel
from torch_models import read_named

import lampq
from lampq.cli import main
from lampq.core.measuring.setting import plan_settings
from lampq.core.values.fitted import Fitted


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    """A plan whose first layer has its input rounded by a quantizer that nobody here has."""
    model, batch = read_named("packed")
    profile = lampq.profile(model, batch, bits=(4, 8), act_bits=(4, 8), fisher_draws=0)
    plan = lampq.plan(profile, average_bits=6)
    bits = plan.layers[0].activation_bits
    strange = Fitted(tag="sparkle", bits=bits, parameters={"spread": 0.5, "levels": (0.0, 1.0)})
    first = dataclasses.replace(plan.layers[0], quantizer=strange, activation_range=None)
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    dataclasses.replace(plan, layers=(first, *plan.layers[1:])).write(path)
    return path


def test_a_plan_with_an_unknown_quantizer_is_shown_and_survives(plan_file, tmp_path, capfd):
    assert main(["inspect", str(plan_file)]) == 0
    assert "sparkle" in capfd.readouterr().err
    plan = lampq.Plan.read(plan_file)
    plan.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == plan_file.read_bytes()


def test_applying_it_names_the_quantizer_the_layer_and_where_one_comes_from(plan_file, tmp_path):
    model, _ = read_named("packed")
    plan = lampq.Plan.read(plan_file)
    with pytest.raises(lampq.RecordError) as caught:
        lampq.apply(model, plan, tmp_path / "q.safetensors")
    said = str(caught.value)
    assert "quantizer 'sparkle' is none of uniform, token" in said
    assert plan.layers[0].name in said
    assert "install the package that announces it (entry points lampq.quantizers)" in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_simulating_it_names_the_quantizer_and_the_layer(plan_file):
    model, _ = read_named("packed")
    plan = lampq.Plan.read(plan_file)
    with pytest.raises(lampq.RecordError, match=rf"{plan.layers[0].name}.*quantizer 'sparkle'"):
        plan_settings(model, plan)


def test_a_format_that_has_no_place_for_quantizers_is_named(tmp_path):
    model = NumpyModel.random()
    plan = lampq.plan(lampq.profile(model, None, bits=(4, 8)), average_bits=6, mode="error")
    rounded = dataclasses.replace(plan.layers[0], quantizer=Fitted(tag="log2", bits=4), activation_bits=4)
    plan = dataclasses.replace(plan, layers=(rounded, *plan.layers[1:]))
    with pytest.raises(
        lampq.AdapterError, match=rf"{model.format} models cannot round {rounded.name} \(log2 of 4 bits\)"
    ):
        lampq.apply(model, plan, tmp_path / "q.npy")
