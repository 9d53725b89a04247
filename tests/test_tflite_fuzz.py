"""A few hundred damaged files; benchmarks/fuzz.py runs ten thousand."""

import pytest
from fuzzing import judge, mutate
from tflite_models import fixture


def test_damage_is_reproducible_and_real():
    data = fixture("vit").read_bytes()
    assert mutate(data, 3) == mutate(data, 3)
    assert sum(mutate(data, seed) != data for seed in range(50)) >= 48


@pytest.mark.parametrize("name", ["vit", "vit_partly_int8", "two_signatures"])
def test_damaged_files_are_refused_or_read(name, tmp_path):
    counts, failures, _, peak = judge("tflite", fixture(name), tmp_path, 150)
    assert failures == []
    assert counts["refused"] > 20
    assert counts["read"] > 5
    assert peak < 10**9


def test_runs_of_damaged_files_end_in_logits_or_an_error(tmp_path):
    counts, failures, _, _ = judge("tflite-run", fixture("conv_batch_3"), tmp_path, 8)
    assert failures == []
    assert sum(counts.values()) == 8
