import json

import pytest
from data_samples import TINY, spec

from lampq.adapters.data import (
    PRESETS,
    Preprocess,
    find_preprocess,
    preprocess_for,
)
from lampq.adapters.data.hugging_face import read_preprocessor_config
from lampq.core.values.errors import AdapterError, RecordError


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, 3, 224, 224), "NCHW"),
        ((None, 224, 224, 3), "NHWC"),
        ((1, 1, 28, 28), "NCHW"),
        ((1, 28, 28, 1), "NHWC"),
        ((None, 3, None, None), "NCHW"),
        ((None, None, None, 4), "NHWC"),
        ((None, None, 32, 32), "NCHW"),
        ((None, 32, 32, None), "NHWC"),
        ((None, 4, 4, 3), "NHWC"),
        ((None, 3, 4, 4), "NCHW"),
        ((None, None, None, None), None),
        ((1, 28, 28), "NHW"),
        ((None, 197, 768), None),
        ((None, 128), None),
        ((None, 64, 32, 32), None),
    ],
)
def test_layout_of_an_input(shape, layout):
    assert spec(*shape).layout == layout


def test_input_spec_rejects_impossible_shapes_and_compares_samples():
    with pytest.raises(RecordError):
        spec(None, 0, 3)
    # One number for all samples is an input too, to be fixed and not fed.
    assert not spec().accepts((7,))
    assert spec(1, None, 4).accepts((7, 9, 4))
    assert not spec(1, None, 4).accepts((1, 9, 5))
    assert not spec(1, 4).accepts((1, 4, 1))
    assert str(TINY) == "x float32[?x3x8x8]"


def test_the_model_fills_in_what_the_record_leaves_open():
    record = PRESETS["imagenet"].for_input(spec(None, 384, 320, 3))
    assert (record.size, record.channels, record.layout) == ((384, 320), 3, "NHWC")
    assert Preprocess(size=(64, 64)).for_input(spec(None, None, None, None)).layout == "NCHW"
    assert Preprocess(size=(64, 64)).for_input(spec(None, None, None, None)).channels == 3
    assert Preprocess(size=(64, 64), layout="NHWC").for_input(spec(*[None] * 4)).layout == "NHWC"
    assert Preprocess().for_input(spec(None, 1, 28, 28)).channels == 1


@pytest.mark.parametrize(
    ("record", "shape", "dtype", "message"),
    [
        (Preprocess(size=(224, 224)), (None, 3, 384, 384), "float32", r"224x224.*3x384x384"),
        (Preprocess(), (None, 3, None, None), "float32", "any size"),
        (Preprocess(mean=(0.1, 0.2, 0.3)), (None, 1, 8, 8), "float32", "3 channels"),
        (Preprocess(channels=1), (None, 3, 8, 8), "float32", "1 channels"),
        (Preprocess(), (None, 128), "int64", "no images"),
        (Preprocess(), (None, 3, 8, 8), "int8", "no images"),
        (Preprocess(layout="NHWC"), (None, 3, 8, 8), "float32", "1, 3 or 4"),
        (Preprocess(), (None, 64, 32, 32), "float32", "1, 3 or 4"),
    ],
)
def test_clashes_with_the_model_are_one_line(record, shape, dtype, message):
    with pytest.raises(AdapterError, match=message) as caught:
        record.for_input(spec(*shape, dtype=dtype))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"std": (0.0,)},
        {"std": (-1.0,)},
        {"mean": (float("nan"),)},
        {"mean": ()},
        {"mean": (0.1, 0.2), "std": (1.0, 1.0, 1.0)},
        {"scale": 0.0},
        {"crop_pct": 0.0},
        {"crop_pct": 1.5},
        {"resize": "longest"},
        {"interpolation": "best"},
        {"channel_order": "GBR"},
        {"layout": "CHWN"},
        {"channels": 2},
        {"size": (0, 4)},
    ],
)
def test_impossible_records(fields):
    with pytest.raises(AdapterError):
        Preprocess(**fields)


def test_records_survive_json():
    for record in (*PRESETS.values(), Preprocess(size=(3, 4), layout="NHWC", channels=4)):
        assert Preprocess.from_json(json.loads(json.dumps(record.to_json()))) == record
    with pytest.raises(AdapterError, match="colour"):
        Preprocess.from_json({"colour": 1})
    with pytest.raises(AdapterError, match="imagenet, inception"):
        Preprocess.preset("imagnet")


HALF = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # What the processors of these families do, checked against their output on images of all shapes.
        ({"size": {"height": 224, "width": 224}, "resample": 2}, ((224, 224), "plain", 1.0, "bilinear")),
        ({"size": 224, "resample": 2}, ((224, 224), "plain", 1.0, "bilinear")),
        ({"size": [192, 256]}, ((192, 256), "plain", 1.0, "bicubic")),
        (
            {
                "size": {"height": 256, "width": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            ((224, 224), "plain", 0.875, "bicubic"),
        ),
        (
            {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "resample": 3},
            ((224, 224), "shortest", 0.875, "bicubic"),
        ),
        (
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 240,
                "crop_size": 224,
                "do_center_crop": True,
            },
            ((224, 224), "shortest", 224 / 240, "bicubic"),
        ),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
            },
            ((224, 224), "shortest", 0.875, "bicubic"),
        ),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 384},
                "crop_pct": 1.0,
            },
            ((384, 384), "plain", 1.0, "bicubic"),
        ),
        (
            {
                "image_processor_type": "LevitImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            ((224, 224), "shortest", 0.875, "bicubic"),
        ),
        ({"do_resize": False, "size": 224}, (None, "shortest", 1.0, "bicubic")),
    ],
)
def test_hugging_face_sizes(tmp_path, config, expected):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**HALF, **config}))
    record = read_preprocessor_config(path)
    assert (record.size, record.resize, record.crop_pct, record.interpolation) == expected
    assert (record.mean, record.std, record.scale) == ((0.5,) * 3, (0.5,) * 3, 1 / 255)


def test_hugging_face_switches(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(
        json.dumps(
            {"image_processor": {"do_rescale": False, "do_normalize": False, "do_flip_channel_order": True}}
        )
    )
    record = read_preprocessor_config(path)
    assert (record.scale, record.mean, record.std, record.channel_order) == (1.0, (0.0,), (1.0,), "BGR")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"feature_size": 80}', "no image preprocessing"),
        ('{"do_resize": true, "size": {"longest_edge": 800}}', "longest_edge"),
        ('{"do_normalize": true, "do_resize": true}', "image_mean is missing"),
        ('{"image_mean": ["a"], "image_std": [1]}', "could not convert"),
        ('{"do_resize": true, "size": 224, "resample": 9}', "resample"),
        ('{"do_resize": true, "size": 200, "crop_size": 224, "do_center_crop": true}', "crop"),
        ('{"do_resize": true, "do_pad": true}', "do_pad"),
        ('{"do_resize": true, "size": 0}', "size"),
    ],
)
def test_hugging_face_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text)
    with pytest.raises(AdapterError, match=message) as caught:
        read_preprocessor_config(path)
    assert str(path) in str(caught.value)


def test_the_file_beside_the_model_is_found(tmp_path):
    model = tmp_path / "model.onnx"
    assert find_preprocess(model, TINY) is None
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**HALF, "do_resize": True, "size": 224}))
    fixed, free = spec(None, 3, 384, 384), spec(None, 3, None, None)
    assert find_preprocess(model, free).size == (224, 224)
    # The model was exported at another resolution than the file's: the model is right.
    assert find_preprocess(model, fixed).size is None
    assert find_preprocess(tmp_path, free).mean == (0.5,) * 3
    assert find_preprocess(tmp_path / "onnx" / "model.onnx", free).size == (224, 224)
    assert find_preprocess(tmp_path / "other" / "model.onnx", free) is None
    path.write_text('{"feature_size": 80, "sampling_rate": 16000}')
    assert find_preprocess(model, free) is None


def test_options_go_before_the_file_and_the_file_before_the_default(tmp_path):
    model, free = tmp_path / "model.onnx", spec(None, 3, None, None)
    assert preprocess_for(model, TINY) == PRESETS["none"]
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**HALF, "do_resize": True, "size": 224}))
    assert preprocess_for(model, free) == read_preprocessor_config(path)
    assert preprocess_for(model, free, preset="clip") == PRESETS["clip"]
    assert preprocess_for(model, free, size="96").size == (96, 96)
    assert preprocess_for(model, free, size="96X64").size == (96, 64)
    assert preprocess_for(model, free, mean=(0.1, 0.2, 0.3)).std == (0.5,) * 3
    assert preprocess_for(model, free, preset="imagenet", size=(8, 9)).size == (8, 9)
    path.write_text("{")
    given = preprocess_for(model, free, mean=(0.1,), std=(0.2,))
    assert (given.mean, given.std, given.size) == ((0.1,), (0.2,), None)
    with pytest.raises(AdapterError, match="not valid JSON"):
        preprocess_for(model, free)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "96 x 96"}, "96 x 96"),
        ({"size": "1x2x3"}, "write 224"),
        ({"size": ""}, "write 224"),
        ({"size": "0"}, "no \\(height, width\\)"),
        ({"preset": "imagnet"}, "no preprocessing preset"),
        ({"mean": (0.5,)}, "together"),
        ({"std": (0.5,)}, "together"),
        ({"mean": (0.5,), "std": (0.0,)}, "std"),
    ],
)
def test_options_that_are_refused(tmp_path, options, message):
    with pytest.raises(AdapterError, match=message):
        preprocess_for(tmp_path / "model.onnx", TINY, **options)
