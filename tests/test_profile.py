import contextlib
import dataclasses
import json

import numpy as np
import pytest
from records import make_profile

from lampq.core.values.errors import RecordError
from lampq.core.values.files import OutputExistsError
from lampq.core.values.merge import merge
from lampq.core.values.option import Option, parse_bits
from lampq.core.values.profile import Profile
from lampq.core.values.tables import known_tables


@pytest.mark.parametrize("data", [True, False])
def test_a_profile_survives_its_files(tmp_path, data):
    profile = make_profile(data=data)
    profile.write(tmp_path / "p.json")
    back = Profile.read(tmp_path / "p.json")
    assert [layer.name for layer in back.layers] == [layer.name for layer in profile.layers]
    assert back.options == profile.options
    np.testing.assert_array_equal(back.weight_error, profile.weight_error)
    np.testing.assert_array_equal(back.payload_bytes, profile.payload_bytes)
    assert (back.kl is None) == (not data)
    if data:
        np.testing.assert_array_equal(back.kl, profile.kl)
        np.testing.assert_array_equal(back.array("logit_delta"), profile.array("logit_delta"))
        assert back.layers[1].fisher == profile.layers[1].fisher
    np.testing.assert_allclose(back.layers[0].weight.std, profile.layers[0].weight.std)


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "p.npz").write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        make_profile().write(tmp_path / "p.json")
    assert (tmp_path / "p.npz").read_text() == "mine"
    assert not (tmp_path / "p.json").exists()
    make_profile().write(tmp_path / "p.json", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.json", "p.npz"]


def test_arrays_of_another_profile_are_noticed(tmp_path):
    make_profile(0).write(tmp_path / "a.json")
    make_profile(1).write(tmp_path / "b.json")
    (tmp_path / "a.npz").write_bytes((tmp_path / "b.npz").read_bytes())
    with pytest.raises(RecordError, match="have changed"):
        Profile.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "other"}', '{"schema": "lampq.profile/1"}', '{"a": NaN}']
)
def test_files_that_are_no_profile_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(RecordError) as caught:
        Profile.read(path)
    assert "\n" not in str(caught.value)
    assert "p.json" in str(caught.value)


def test_every_truncation_and_flipped_byte_is_an_error_or_a_profile(tmp_path):
    make_profile(kinds=("fc1", "fc2")).write(tmp_path / "p.json")
    good = (tmp_path / "p.json").read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        bad = bytearray(good)
        if trial % 3 == 0:
            bad = bad[: rng.integers(len(bad))]
        else:
            bad[rng.integers(len(bad))] = rng.integers(256)
        (tmp_path / "p.json").write_bytes(bytes(bad))
        with contextlib.suppress(RecordError):
            Profile.read(tmp_path / "p.json")


def test_merging_shards_equals_one_profile_of_all_samples():
    whole = make_profile(samples=6)
    logits, delta = whole.array("logits"), whole.array("logit_delta")
    parts = [
        dataclasses.replace(
            whole,
            samples=n,
            tables=dict(whole.tables) | known_tables(logits=logits[s], logit_delta=delta[:, :, s], kl=kl),
        )
        for n, s, kl in ((2, slice(0, 2), whole.kl * 2), (4, slice(2, 6), whole.kl / 2))
    ]
    merged = merge(parts)
    np.testing.assert_array_equal(merged.array("logits"), logits)
    np.testing.assert_array_equal(merged.array("logit_delta"), delta)
    np.testing.assert_allclose(merged.kl, whole.kl * (2 * 2 + 4 * 0.5) / 6)
    assert merged.samples == 6


def test_profiles_of_different_models_do_not_merge():
    with pytest.raises(RecordError, match="different models"):
        merge([make_profile(0, kinds=("fc1",)), dataclasses.replace(make_profile(1, kinds=("fc1",)))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": (Option(weight_bits=4), Option(weight_bits=2))}, "increasing"),
        ({"layers": ()}, "at least one layer"),
        ({"rest_bytes": -1}, "negative"),
    ],
)
def test_impossible_profiles_are_refused(change, message):
    with pytest.raises(RecordError, match=message):
        dataclasses.replace(make_profile(), **change)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"weight_error": np.full((10, 7), np.nan)}, "not finite at layer blocks.0.patch_embed"),
        ({"kl": np.full((10, 7), -1.0)}, "negative at layer blocks.0.patch_embed"),
        ({"weight_error": np.ones((3, 7))}, r"shape \(3, 7\), expected \(10, 7\)"),
        ({"weight_error": None}, "weight_error is missing"),
        ({"logits": None}, "logits"),
        ({"gram": np.zeros((10, 7, 10, 6))}, "gram has shape"),
        ({"wishes": np.zeros((10, 7))}, "no table is called 'wishes'"),
    ],
)
def test_impossible_tables_are_refused(tables, message):
    with pytest.raises(RecordError, match=message):
        make_profile().with_tables(**tables)


def test_bits_are_read_as_people_write_them():
    assert parse_bits("2-8") == (2, 3, 4, 5, 6, 7, 8)
    assert parse_bits("8,2, 4") == (2, 4, 8)
    for text in ("", "x", "0-3", "4-2", "2-9", "3.5"):
        with pytest.raises(RecordError):
            parse_bits(text)


def test_layer_records_refuse_what_cannot_be():
    layer = make_profile().layers[0]
    for change in (
        {"kind": "wizard"},
        {"size": 3},
        {"channel_axis": 5},
        {"name": ""},
        {"fisher": float("nan")},
        {"macs": -1},
    ):
        with pytest.raises(RecordError):
            dataclasses.replace(layer, **change)


def test_profile_json_is_valid_json(tmp_path):
    make_profile().write(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == "lampq.profile/2"
