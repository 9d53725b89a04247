"""Data of models with several inputs, of inputs that are fixed, and of samples of several shapes."""

import numpy as np
import pytest
from data_samples import picture, save, spec

from lampq.adapters.data import from_arrays, parse_constant, read_data
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec


def an_input(name, *shape, dtype="float32"):
    return InputSpec(name=name, shape=shape, dtype=dtype)


PIXELS = an_input("pixel_values", None, 3, 8, 8)
IDS = an_input("input_ids", None, None, dtype="int64")
MASK = an_input("attention_mask", None, None, dtype="int64")
CLIP = (IDS, PIXELS, MASK)
DETECTOR = (an_input("image", None, 3, 8, 8), an_input("orig_size", None, 2, dtype="int64"))


def arrays(samples=4, length=5):
    rng = np.random.default_rng(0)
    return {
        "pixel_values": rng.normal(size=(samples, 3, 8, 8)).astype(np.float32),
        "input_ids": rng.integers(0, 9, (samples, length)),
        "attention_mask": np.ones((samples, length), np.int32),
    }


def test_an_npz_gives_every_input_under_its_name(tmp_path):
    made = arrays()
    np.savez(tmp_path / "d.npz", **made, y=np.arange(4))
    data = read_data(tmp_path / "d.npz", input_specs=CLIP)
    inputs, labels = data.load()
    assert inputs.names == ("input_ids", "pixel_values", "attention_mask")
    for name, array in made.items():
        np.testing.assert_array_equal(inputs[name], array)
    assert inputs["attention_mask"].dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3]
    assert [batch.samples for batch in data.batches(3)] == [3, 1]
    assert (
        data.summary()["digest"]
        != read_data(tmp_path / "d.npz", input_specs=CLIP, samples=3).summary()["digest"]
    )


def test_a_lone_input_may_go_by_its_own_name(tmp_path):
    np.savez(tmp_path / "d.npz", tokens=np.arange(6).reshape(2, 3))
    (tokens,) = read_data(
        tmp_path / "d.npz", input_specs=[an_input("tokens", None, 3, dtype="int64")]
    ).inputs()
    assert tokens["tokens"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_images_among_several_inputs_are_preprocessed():
    pixels = np.full((2, 4, 4, 3), 255, np.uint8)
    found = from_arrays(
        {**arrays(2), "pixel_values": pixels}, input_specs=CLIP, preprocess="inception"
    ).inputs()
    np.testing.assert_allclose(found["pixel_values"], np.ones((2, 3, 8, 8)), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"attention_mask": None},
            "but no attention_mask; the model's inputs are input_ids int64.*pixel_values",
        ),
        ({"boxes": np.zeros(4)}, "no input is called boxes; the model's inputs are input_ids"),
        ({"input_ids": np.zeros((3, 5), np.int64)}, "different numbers of samples .*input_ids 3"),
        (
            {"attention_mask": np.ones((4, 6), np.int64)},
            r"attention_mask has shape \(4, 6\), input_ids \(4, 5\)",
        ),
        ({"attention_mask": np.ones((4, 5))}, "attention_mask is float64"),
        ({"pixel_values": np.zeros((4, 3, 9, 8), np.float32)}, "pixel_values of shape 4x3x9x8"),
    ],
)
def test_named_arrays_that_do_not_fit_are_told_in_a_line(tmp_path, change, message):
    made = {name: array for name, array in {**arrays(), **change}.items() if array is not None}
    np.savez(tmp_path / "d.npz", **made)
    with pytest.raises(AdapterError, match=message) as caught:
        read_data(tmp_path / "d.npz", input_specs=CLIP)
    assert "\n" not in str(caught.value)


def test_a_mask_of_yes_and_no_takes_zeros_and_ones():
    mask = an_input("mask", None, 3, dtype="bool")
    ids = an_input("ids", None, 3, dtype="int32")
    made = {"ids": np.ones((2, 3), np.int64), "mask": np.array([[1, 1, 0], [1, 0, 0]])}
    found = from_arrays(made, input_specs=[ids, mask]).inputs()
    assert (found["mask"].dtype, found["ids"].dtype) == (np.bool_, np.int32)
    with pytest.raises(AdapterError, match="mask holds values beyond the type"):
        from_arrays({**made, "mask": made["mask"] + 1}, input_specs=[ids, mask])


FUNCTIONS = """
import numpy as np

def named():
    for start, length in ((0, 3), (2, 5), (4, 3)):
        yield {"input_ids": np.full((2, length), start), "attention_mask": np.ones((2, length), int)}, [start, start]

def lone():
    yield np.zeros((2, 3), int)

def short():
    yield {"input_ids": np.zeros((2, 3), int)}
"""


def test_a_function_yields_inputs_by_name_grouped_by_shape(tmp_path):
    (tmp_path / "data_of_mine.py").write_text(FUNCTIONS)
    data = read_data(f"{tmp_path / 'data_of_mine.py'}:named", input_specs=[IDS, MASK])
    inputs, labels = data.load()
    assert [group["input_ids"].shape for group in inputs] == [(4, 3), (2, 5)]
    assert [group["input_ids"][:, 0].tolist() for group in inputs] == [[0, 0, 4, 4], [2, 2]]
    assert labels.tolist() == data.labels().tolist() == [0, 0, 4, 4, 2, 2]
    assert len(data) == 6
    for name, message in (("lone", "yield a dict of arrays by name"), ("short", "no attention_mask")):
        with pytest.raises(AdapterError, match=message):
            read_data(f"{tmp_path / 'data_of_mine.py'}:{name}", input_specs=[IDS, MASK]).load()


def test_images_of_several_sizes_keep_them_in_groups(tmp_path):
    sizes = {"a": (8, 6), "b": (4, 4), "c": (8, 6), "d": (4, 4), "e": (8, 6)}
    for index, (name, size) in enumerate(sizes.items()):
        save(tmp_path / "images" / str(index % 2) / f"{name}.png", picture(index, *size))
    data = read_data(tmp_path / "images", input_specs=[spec(None, 3, None, None)])
    inputs, labels = data.load()
    assert sorted(group["x"].shape for group in inputs) == [(2, 3, 4, 4), (3, 3, 8, 6)]
    expected = {picture(i, *size).tobytes(): i % 2 for i, size in enumerate(sizes.values())}
    read = [array for group in inputs for array in group["x"]]
    for array, label in zip(read, labels, strict=True):
        pixels = np.round(array.transpose(1, 2, 0) * 255).astype(np.uint8)
        assert expected[pixels.tobytes()] == label
    assert labels.tolist() == data.labels().tolist()
    assert data.preprocess.size is None
    assert {batch.samples for batch in data.batches(2)} <= {1, 2}


def test_an_image_upright_by_its_exif_counts_as_it_is_shown(tmp_path):
    from PIL import Image

    image = Image.fromarray(picture(0, 4, 6))
    exif = image.getexif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.jpg", exif=exif)
    assert read_data(tmp_path / "images", input_specs=[spec(None, 3, None, None)]).inputs()["x"].shape == (
        1,
        3,
        6,
        4,
    )


def test_an_image_that_cannot_keep_its_size_is_named(tmp_path):
    save(tmp_path / "images" / "a.png", picture(0, 8, 6))
    save(tmp_path / "images" / "b.png", picture(1, 9, 6))
    with pytest.raises(AdapterError, match=r"b\.png is 9x6.*no place for.*--image-size"):
        read_data(tmp_path / "images", input_specs=[spec(None, 3, 8, None)])


def test_one_image_input_and_the_others_fixed(tmp_path):
    save(tmp_path / "images" / "a.png", picture(0))
    save(tmp_path / "images" / "b.png", picture(1))
    with pytest.raises(
        AdapterError, match=r"images go into one input.*fix orig_size with --input NAME=VALUE"
    ):
        read_data(tmp_path / "images", input_specs=DETECTOR)
    data = read_data(tmp_path / "images", input_specs=DETECTOR, constants={"orig_size": [480, 640]})
    found = data.inputs()
    assert found["orig_size"].tolist() == [[480, 640]] * 2
    assert (found["orig_size"].dtype, found["image"].shape) == (np.int64, (2, 3, 8, 8))
    assert data.summary()["constants"] == {"orig_size": [480, 640]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=3", 3), ("a=0.5", 0.5), ("a=1,2.5", [1, 2.5]), ("a=true", True), ("x:0=7", 7), ("a=1e3", 1000)],
)
def test_constants_are_numbers_with_commas(text, expected):
    name, value = parse_constant(text)
    assert name == text.partition("=")[0]
    assert value.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "not of the form NAME=VALUE"),
        ("=3", "not of the form"),
        ("a=", "not of the form"),
        ("a=large", "neither numbers"),
        ("a=none.npy", "cannot be read"),
        ("a=bad.npy", "no .npy file"),
    ],
)
def test_constants_that_are_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(AdapterError, match=message) as caught:
        parse_constant(text)
    assert "\n" not in str(caught.value)


def test_a_constant_from_a_file(tmp_path):
    np.save(tmp_path / "image.npy", np.ones((1, 3, 8, 8)))
    name, value = parse_constant(f"pixel_values={tmp_path / 'image.npy'}")
    texts = {key: array for key, array in arrays().items() if key != name}
    found = from_arrays(texts, input_specs=CLIP, constants={name: value}).inputs()
    assert (found[name].shape, found[name].dtype) == ((4, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"size": 3}, "no input is called size; the model's inputs are image"),
        ({"orig_size": [1, 2, 3]}, r"cannot be fixed to an array of shape \(3,\)"),
        ({"orig_size": 0.5}, "cannot be fixed to 0.5: its type is another"),
        ({"orig_size": "a"}, "cannot be fixed to"),
        ({"image": 0, "orig_size": 1}, "all inputs are fixed"),
    ],
)
def test_constants_that_do_not_fit(constants, message):
    with pytest.raises(AdapterError, match=message):
        from_arrays(np.zeros((2, 3, 8, 8), np.float32), input_specs=DETECTOR, constants=constants)


def test_a_number_fills_an_input_of_known_shape():
    found = from_arrays(np.zeros((2, 3, 8, 8), np.float32), input_specs=DETECTOR, constants={"orig_size": 8})
    assert found.inputs()["orig_size"].tolist() == [[8, 8], [8, 8]]


def test_a_number_fills_the_length_of_the_text_beside_it():
    made = {"input_ids": np.zeros((3, 5), np.int64)}
    found = from_arrays(made, input_specs=[IDS, MASK], constants={"attention_mask": 1}).inputs()
    assert found["attention_mask"].tolist() == [[1] * 5] * 3
    with pytest.raises(
        AdapterError, match=r"attention_mask int64.* has no length of its own and none of another"
    ):
        from_arrays(
            arrays()["pixel_values"], input_specs=[PIXELS, MASK], constants={"attention_mask": 1}
        ).inputs()


def test_an_array_for_a_fixed_input_is_one_too_many(tmp_path):
    np.savez(
        tmp_path / "d.npz", image=np.zeros((2, 3, 8, 8), np.float32), orig_size=np.ones((2, 2), np.int64)
    )
    with pytest.raises(AdapterError, match="no input is called orig_size"):
        read_data(tmp_path / "d.npz", input_specs=DETECTOR, constants={"orig_size": 8})


def test_data_need_to_know_what_for(tmp_path):
    with pytest.raises(AdapterError, match="give input_specs"):
        read_data(tmp_path)
