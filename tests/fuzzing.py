"""Damaged files: how they are made, and what counts as surviving one.

Used by the tests on a few hundred files and by benchmarks/fuzz.py on many thousands.
"""

import functools
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SECONDS, BYTES = 5.0, 10**9
_VALUES = (
    *(b"0", b"-1", b"1e999", b"-1e308", b"99999999999999999999999", b"0.5", b"NaN", b"null", b"true", b'""'),
    *(b'"x"', b"[]", b"{}", b"[[1]]", b'"\\ud800"', b'"\\n"', b'"1"', b"9" * 5000, b"[" * 3000),
)
_HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 1 << 20, 1 << 16, 0, 1)


def mutate(data, seed):
    """One to three kinds of damage done to a file: flipped bytes, cut ends, huge numbers, moved and doubled
    blocks."""
    rng = np.random.default_rng(seed)
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if data[:1] in (b"{", b"[") and rng.random() < 0.7:
            _damage_text(data, rng)
        else:
            _damage(data, rng)
    return bytes(data)


def _damage_text(data, rng):
    """A value of a JSON file replaced by another, or a key by another: what survives the parser."""
    values = [m.span() for m in re.finditer(rb'-?\d[\d.eE+-]*|"[^"]*"|true|false|null|\[\]|\{\}', data)]
    if values:
        start, end = values[rng.integers(0, len(values))]
        data[start:end] = _VALUES[rng.integers(0, len(_VALUES))]


def _damage(data, rng):
    size = len(data)
    # Most of what can go wrong lies in the tables; a third of the damage is done in the first kilobytes.
    end = min(size, 4096) if rng.random() < 0.33 else size
    at = int(rng.integers(0, max(1, end)))
    kind = rng.integers(0, 8)
    if kind == 0:
        for place in rng.integers(0, max(1, end), size=rng.integers(1, 17)):
            if place < len(data):
                data[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        del data[at:]
    elif kind in (2, 3):
        place = at // 4 * 4
        data[place : place + 4] = struct.pack("<I", _HUGE[rng.integers(0, len(_HUGE))])
    elif kind == 4:
        place = at // 4 * 4
        if place + 4 <= len(data):
            (value,) = struct.unpack_from("<I", data, place)
            struct.pack_into("<I", data, place, (value + int(rng.integers(-64, 65))) & 0xFFFFFFFF)
    elif kind == 5:
        data[at : at + int(rng.integers(1, 64))] = bytes(rng.integers(0, 256, size=8, dtype=np.uint8))
    elif kind == 6:
        other = int(rng.integers(0, max(1, end)))
        block = data[other : other + int(rng.integers(4, 256))]
        data[at : at + len(block)] = block
    else:
        data[at:at] = bytes(int(rng.integers(1, 33)))


def use_tflite(path):
    from lampq.adapters.tflite import read

    model = read(path)
    for layer in model.layers():
        weight = model.weight(layer.name)
        assert weight.shape == layer.shape
        assert weight.dtype == np.float32
        assert np.isfinite(weight).all()
        model.payload_bytes(layer, 4, "bitplane")
    model.rest_bytes()
    model.stored_bits()


def run_tflite(path):
    from lampq.adapters.tflite import read

    model = read(path)
    batch = np.zeros((1, *(d or 1 for d in model.input_spec.shape[1:])), model.input_spec.dtype)
    assert np.isfinite(model.run(batch)).all()


def use_onnx(path):
    from lampq.adapters.onnx import read

    model = read(path)
    for layer in model.layers():
        assert model.weight(layer.name).shape == layer.shape


def use_plan(path):
    from lampq.core.values.plan import Plan

    assert Plan.read(path).average_bits > 0


def use_profile(path):
    from lampq.core.values.profile import Profile

    assert len(Profile.read(path).layers) > 0


def use_stored(path):
    from lampq.verbs.convert import read_quantized

    assert read_quantized(path).average_bits > 0


def use_configuration(tool, path):
    """Read a tool's configuration for the model, or profile of it, that lies beside it as `TOOL.reference.*`."""
    from lampq.verbs.convert import read_foreign

    (reference,) = (p for p in path.parent.glob(f"{tool}.reference.*") if p.suffix != ".npz")
    plan = read_foreign(path, tool, _reference(reference))
    assert all(1 <= layer.weight_bits <= 8 for layer in plan.layers)


@functools.cache
def _reference(path):
    from lampq import adapters
    from lampq.core.values.profile import Profile

    return Profile.read(path) if path.suffix == ".json" else adapters.read(path)


USES = {
    "tflite": use_tflite,
    "tflite-run": run_tflite,
    "onnx": use_onnx,
    "plan": use_plan,
    "profile": use_profile,
    "onnx-stored": use_stored,
    "tflite-stored": use_stored,
}


def survive(kind, path):
    """`read` where the file could be used, `refused` where it was an error of one line; anything else is
    raised."""
    from lampq.core.values.errors import LampqError

    try:
        if kind.startswith("config-"):
            use_configuration(kind.removeprefix("config-"), path)
        else:
            USES[kind](path)
    except LampqError as err:
        message = str(err)
        if not message or "\n" in message or len(message) > 2000:
            raise AssertionError(f"not one line: {message!r}") from err
        return "refused"
    return "read"


def work(kind, source, folder, first, last):
    """Judge damaged copies of a file, one line each: number, outcome, CPU seconds. Runs in a process of its
    own."""
    import warnings

    warnings.simplefilter("ignore")
    data = Path(source).read_bytes()
    path = Path(folder) / f"damaged{Path(source).suffix}"
    # What a file refers to lies beside it.
    for other in Path(source).parent.glob(f"{Path(source).stem}.*"):
        if other.name != Path(source).name and other.stat().st_size < 1 << 27:
            shutil.copy(other, folder)
    survive(kind, Path(source))
    used = _peak_bytes()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
    for number in range(first, last):
        path.unlink(missing_ok=True)
        path.write_bytes(mutate(data, number))
        print(f"{number} start 0", flush=True)
        began = time.process_time()
        try:
            outcome = survive(kind, path)
        except BaseException as err:
            outcome = f"FAILED:{type(err).__name__}:{str(err)[:200]!r}".replace(" ", "_")
        print(f"{number} {outcome} {time.process_time() - began:.3f}", flush=True)
    print(f"{last} peak {_peak_bytes() - used}", flush=True)


def _peak_bytes():
    """The most memory that this process has had; getrusage counts its parent's too, from before the start."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def judge(kind, source, folder, count, first=0):
    """Outcomes of `count` damaged copies of a file, judged in processes that may crash or hang.

    Returns:
        {"read": n, "refused": n}, the failures as (number, what), the longest CPU seconds, and the largest
        growth of memory in bytes.
    """
    counts, failures, slowest, peak = {"read": 0, "refused": 0}, [], 0.0, 0
    number, last = first, first + count
    while number < last:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import fuzzing; "
            "fuzzing.work(*sys.argv[2:5], *map(int, sys.argv[5:]))"
        )
        arguments = [str(Path(__file__).parent), kind, str(source), str(folder), str(number), str(last)]
        child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        current, limit = number, None
        for line in child.stdout:
            parts = line.split()
            if len(parts) != 3 or not parts[0].isdigit():
                # Standard output belongs to whoever calls lampq.
                failures.append((current, f"printed {line!r}"))
                continue
            index, outcome, value = parts
            if outcome == "peak":
                peak = max(peak, int(value))
                number = last
            elif outcome == "start":
                current = int(index)
                limit = _watch(child, 20 * SECONDS, limit)
            else:
                number = int(index) + 1
                slowest = max(slowest, float(value))
                if outcome in counts and float(value) <= SECONDS:
                    counts[outcome] += 1
                else:
                    failures.append((int(index), f"{outcome} in {value} s"))
        _watch(child, None, limit)
        child.stdout.close()
        if child.wait() != 0 or number < last:
            failures.append((current, f"the process ended with {child.returncode}"))
            number = max(number, current + 1)
    return counts, failures, slowest, peak


def _watch(child, seconds, previous):
    """End the process if its current file takes too long by the clock; None stops watching."""
    import threading

    if previous is not None:
        previous.cancel()
    if seconds is None:
        return None
    timer = threading.Timer(seconds, child.kill)
    timer.daemon = True
    timer.start()
    return timer
