"""What a model runs in, codes and freed blocks do not stay in memory beside what comes after them."""

import ctypes
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import onnxruntime as ort
import pytest
from onnx_graphs import batch_for, transformer
from onnx_runs import read, run

import lampq
from lampq.adapters.autograd import rebuilt
from lampq.adapters.onnx import trials
from lampq.core.measuring import gradient_rows
from lampq.core.measuring.model import release
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing import coding
from lampq.core.quantizing.coding import Kept
from lampq.core.quantizing.quantizer import quantize
from lampq.core.quantizing.shelved_codes import ShelvedCodes
from lampq.core.readouts.draws import Draws
from lampq.verbs import quantize as quantizing

_FREES = """
from pathlib import Path
import numpy as np
from lampq.core.values.memory import give_back

def resident():
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else 0

# Every second block stays, so that what is between them is not at the end of the heap.
blocks = [np.ones(12_000) for _ in range(4000)]
del blocks[::2]
before = resident()
give_back()
print(before - resident())
"""


class _NoSums:
    def traces(self):
        return {}


@pytest.fixture
def opened(monkeypatch):
    """Weak references to all sessions that are opened, closed ones dead."""
    sessions, session = [], ort.InferenceSession

    def tracked(*given, **options):
        one = session(*given, **options)
        sessions.append(weakref.ref(one))
        return one

    monkeypatch.setattr(ort, "InferenceSession", tracked)
    return sessions


def alive(sessions):
    return [one for one in sessions if one() is not None]


def test_a_released_model_holds_no_session_and_gives_the_same_again(tmp_path, opened):
    model, batch = read(transformer(tmp_path / "m.onnx")), batch_for(3, 6, 16)
    changed = model.with_weights({"head": model.weight("head") * 2})
    before = [run(model, batch), run(changed, batch)]
    assert alive(opened)
    release(changed)
    assert not alive(opened)
    after = [run(changed, batch), run(model, batch)][::-1]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_measured_with_is_gone_when_the_written_model_is_run(tmp_path, monkeypatch, opened):
    model, batch, left = read(transformer(tmp_path / "m.onnx")), batch_for(16, 6, 16), []
    reread = quantizing.read_written

    def read_written(*given):
        left.append(len(alive(opened)))
        return reread(*given)

    monkeypatch.setattr(quantizing, "read_written", read_written)
    lampq.quantize(model, batch, tmp_path / "q.onnx", average_bits=3, bits=(2, 3, 4))
    assert left == [0]


def test_a_large_file_in_segments_has_no_session_of_the_whole_beside_them(tmp_path, monkeypatch, opened):
    model, batch = read(transformer(tmp_path / "m.onnx")), batch_for(3, 6, 16)
    whole = run(model, batch)
    monkeypatch.setattr(trials, "WHOLE_BYTES", 0)
    list(model.taps(batch))
    paths = []
    monkeypatch.setattr(
        type(model.variant.opened.runtime), "open_file", lambda self, path, **_: paths.append(path)
    )
    np.testing.assert_allclose(run(model, batch), whole, atol=1e-5)
    assert not paths


def test_gradients_of_a_large_file_are_taken_without_its_sessions(tmp_path, monkeypatch, opened):
    model, batch, left = read(transformer(tmp_path / "m.onnx")), batch_for(3, 6, 16), []
    monkeypatch.setattr(trials, "WHOLE_BYTES", 0)
    monkeypatch.setattr(rebuilt, "fisher_sums", lambda *_, **__: left.append(len(alive(opened))) or _NoSums())
    reference = measure_reference(model, batch)
    model.fisher(reference.inputs, reference.readout, Draws(count=1, seed=0))
    assert left == [0]


def test_a_walk_lets_go_of_the_weights_behind_it(tmp_path):
    model, batch = read(transformer(tmp_path / "m.onnx")), batch_for(3, 6, 16)
    names = [layer.name for layer in model.layers()]
    weights = {name: model.weight(name) * np.float32(1.5) for name in names}
    references = [weakref.ref(weight) for weight in weights.values()]
    changed = {
        name: [values for each, values, _ in model.with_weights(weights).taps(batch) if each == name]
        for name in names
    }
    walk = model.walk(model.backend.checked(batch))
    for name in names:
        for wanted, (values, _) in zip(changed[name], walk.inputs(name), strict=True):
            np.testing.assert_allclose(values, wanted, atol=1e-5)
        walk.replace(name, weights.pop(name))
    assert [reference() is not None for reference in references] == [False] * 4 + [True]
    with pytest.raises(RuntimeError, match="in the order"):
        walk.replace(names[0], model.weight(names[0]))


def test_codes_that_are_read_from_disk_for_every_pass_give_the_same_profile(tmp_path, monkeypatch):
    model, batch = read(transformer(tmp_path / "m.onnx")), batch_for(16, 6, 16)
    first = lampq.profile(model, batch, bits=(2, 4), measure="gradients")
    on_disk, put = [], ShelvedCodes.put

    def counted(self, key, quantized):
        on_disk.append(key)
        put(self, key, quantized)

    monkeypatch.setattr(ShelvedCodes, "put", counted)
    monkeypatch.setattr(gradient_rows, "_CODES_BYTES", 2 * 16 * 48)
    second = lampq.profile(model, batch, bits=(2, 4), measure="gradients")
    for name in ("kl", "gram", "weight_error"):
        np.testing.assert_array_equal(first.array(name), second.array(name))
    assert set(on_disk) == {(layer, width) for layer in range(1, len(first.layers)) for width in range(2)}


def test_codes_are_given_back_as_they_were_kept_and_most_of_them_take_no_memory(monkeypatch):
    monkeypatch.setattr(coding, "_MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr(coding, "_KEPT_BYTES", 6 << 20)
    rows = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)
    chosen = {("layer", bits): quantize(rows, bits) for bits in range(2, 9)}
    more = {("other", bits): quantize(rows * 2, bits) for bits in range(2, 9)}
    tracemalloc.start()
    try:
        kept = Kept()
        kept.put(chosen)
        kept.put(more)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    known = [key for key in (*chosen, *more) if kept.get(key) is not None]
    assert known == [*chosen, *list(more)[:5]]
    for key in known:
        there, wanted = kept.get(key), {**chosen, **more}[key]
        np.testing.assert_array_equal(there.codes, wanted.codes)
        np.testing.assert_array_equal(there.scale, wanted.scale)
        np.testing.assert_array_equal(there.squared_error, wanted.squared_error)
        assert (there.step, there.offset, there.bits) == (wanted.step, wanted.offset, wanted.bits)


def test_freed_blocks_go_back_to_the_system():
    run = subprocess.run(
        [sys.executable, "-c", _FREES], capture_output=True, text=True, check=True, timeout=120
    )
    keeps = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")
    # 190 MB were freed.
    assert int(run.stdout) > (100 << 20 if keeps else -(100 << 20))
