"""Damaged files of every kind, some dozen or hundred of each; benchmarks/fuzz.py runs thousands."""

import pytest
import torchvision_ops  # noqa: F401
from fuzz_sources import DEMO, configurations, quantized, records
from fuzzing import judge, mutate, survive

from lampq.conversions import FORMATS
from lampq.core.values.errors import LampqError, RecordError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile


@pytest.mark.parametrize(("kind", "count"), [("profile", 400), ("plan", 400), ("onnx", 60)])
def test_damaged_files_are_refused_or_read(kind, count, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    counts, failures, _, peak = judge(kind, {"onnx": DEMO, **dict(records(tmp_path))}[kind], folder, count)
    assert failures == []
    assert counts["read"] > 0
    assert counts["refused"] > count / 2
    assert peak < 10**9


def test_a_number_beyond_all_floats_is_a_malformed_profile(tmp_path):
    path = dict(records(tmp_path))["profile"]
    text = path.read_text()
    path.write_text(text.replace('"samples": 6', '"samples": 1e999'))
    with pytest.raises(RecordError, match="malformed"):
        Profile.read(path)


@pytest.mark.parametrize(("kind", "record"), [("profile", Profile), ("plan", Plan)])
def test_names_that_are_line_breaks_do_not_break_the_message(kind, record, tmp_path):
    path = dict(records(tmp_path))[kind]
    text = path.read_text()
    refused = 0
    for key in ("activation_bits", "weight_bits", "name", "shape", "size", "mean"):
        path.write_text(text.replace(f'"{key}":', r'"\n":'))
        try:
            record.read(path)
        except LampqError as err:
            assert str(err).isprintable()
            refused += 1
    assert refused > 3


@pytest.fixture(scope="module")
def quantized_files(tmp_path_factory):
    return quantized(tmp_path_factory.mktemp("quantized"))


@pytest.mark.parametrize("index", range(5))
def test_damaged_quantized_models(index, quantized_files, tmp_path):
    kind, path = quantized_files[index]
    counts, failures, _, peak = judge(kind, path, tmp_path, 40)
    assert failures == []
    assert counts["refused"] > 5
    assert peak < 10**9


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return dict(configurations(tmp_path_factory.mktemp("foreign")))


@pytest.mark.parametrize("tool", FORMATS)
def test_damaged_configurations(tool, foreign):
    """Read by Python alone, which cannot crash: here, and not in a process of its own."""
    source = foreign[f"config-{tool}"]
    damaged = source.with_name(f"damaged{source.suffix}")
    outcomes = []
    for seed in range(60):
        damaged.write_bytes(mutate(source.read_bytes(), seed))
        outcomes.append(survive(f"config-{tool}", damaged))
    assert outcomes.count("refused") > 10
