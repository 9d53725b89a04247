import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from records import make_profile

import lampq
from lampq.core.values.errors import LampqError, OutputExistsError, RecordError
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
    (tmp_path / "p.json").write_text("mine")
    (tmp_path / "p.npz").write_text("mine too")
    with pytest.raises(OutputExistsError, match="--force"):
        make_profile().write(tmp_path / "p.json")
    assert (tmp_path / "p.json").read_text() == "mine"
    make_profile().write(tmp_path / "p.json", force=True)
    assert (tmp_path / "p.npz").read_text() == "mine too"
    assert len(list(tmp_path.iterdir())) == 3


def test_arrays_of_another_profile_are_noticed(tmp_path):
    make_profile(0).write(tmp_path / "a.json")
    make_profile(1).write(tmp_path / "b.json")
    (a,), (b,) = tmp_path.glob("a.*.npz"), tmp_path.glob("b.*.npz")
    a.write_bytes(b.read_bytes())
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


def test_profiles_do_not_lose_their_logit_differences_in_a_merge():
    with_differences, without = make_profile(0), make_profile(0).with_tables(logit_delta=None)
    for parts in ([with_differences, without], [without, with_differences]):
        with pytest.raises(RecordError, match=r"mode superposition is lost; .* with fewer widths"):
            merge(parts)


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


def numbers(value, place=()):
    """Where the numbers of a JSON file are."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else list(enumerate(value))[:2]
        for key, inner in items:
            yield from numbers(inner, (*place, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place


def test_huge_integers_anywhere_are_an_error_or_a_profile_to_plan_from(tmp_path):
    make_profile(kinds=("fc1", "fc2"), widths=(2, 4)).write(tmp_path / "p.json")
    good = (tmp_path / "p.json").read_text()
    for place in numbers(json.loads(good)):
        for bad in (2**62, 2**63, 10**30, 10**4000):
            data = holder = json.loads(good)
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = bad
            (tmp_path / "p.json").write_text(json.dumps(data))
            with contextlib.suppress(LampqError):
                profile = Profile.read(tmp_path / "p.json")
                lampq.plan(profile, budget=lampq.Budget(max_bops=10**6, size_bytes=10**4), mode="kl")


def archive(
    *, method=zipfile.ZIP_STORED, flag=0, name="kl.npy", content=b"\x93NUMPY\x01\x00\x10\x00{'descr': 1}"
):
    """An archive with one entry that can be odd in one way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(name, content)
    data = bytearray(buffer.getvalue())
    if flag:
        for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(magic) + offset] |= flag
    return bytes(data)


def header(text):
    """An array whose header says this."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        archive(),
        archive(flag=1),
        archive(method=zipfile.ZIP_DEFLATED, content=bytes(10**7)),
        archive(content=header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999, 9)}\n")),
        archive(content=header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 400 + ",)}\n")),
        archive(content=header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n")),
        archive(content=header("((((\n")),
        archive(
            name="other.npy", content=header("{'descr': '<f8', 'fortran_order': False, 'shape': (0,)}\n")
        ),
    ],
)
def test_archives_made_to_do_harm_are_one_line(content, tmp_path):
    make_profile().write(tmp_path / "p.json")
    (arrays,) = tmp_path.glob("*.npz")
    arrays.write_bytes(content)
    data = json.loads((tmp_path / "p.json").read_text())
    data["arrays"]["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(RecordError) as caught:
        Profile.read(tmp_path / "p.json")
    assert "\n" not in str(caught.value)
