"""Hostile PyTorch files: each tries to run code, to crash the process or to fill memory.

`python torch_hostile.py FOLDER` reads every file of a folder in one process and prints a line for each.
"""

import io
import json
import os
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from fuzzing import mutate
from safetensors.torch import save
from torch_hostile_files import (
    GRAPH_MEMBER,
    WEIGHTS_MEMBER,
    checkpoints,
    programs,
    rewritten,
    safetensors,
    write_program,
)

# Members of an archive that are not read, and remarks: harmless whatever they hold.
HARMLESS = re.compile(
    r"\w+ pickle as (data/(weights/weight_\d|sample_inputs)|archive_|\.data|byteorder).*|guards|mutated .*"
)


def factory():
    """The module that checkpoints are for."""
    return torch.nn.Sequential(torch.nn.Linear(4, 3))


def read(path):
    """Use a file as `inspect` would."""
    from lampq import adapters

    if path.suffix == ".pt2":
        model = adapters.read(path)
        model.run(np.zeros((2, 3, 8, 8), np.float32))
    else:
        model = adapters.read(f"{__file__}:factory", weights=path)
    assert all(np.isfinite(model.weight(layer.name)).all() for layer in model.layers())


def main(folder):
    from lampq.core.values.errors import LampqError

    warnings.simplefilter("ignore")
    read(folder / "00000.pt2")
    start = _peak_bytes()
    for path in sorted(folder.iterdir()):
        outcome, began = "read", time.process_time()
        try:
            read(path)
        except LampqError as err:
            outcome = "refused" if "\n" not in str(err) and len(str(err)) <= 2000 else f"long: {err}"
        except BaseException as err:
            outcome = f"{type(err).__name__}: {err}"
        used = time.process_time() - began
        print(json.dumps({"file": path.name, "outcome": outcome, "seconds": used}), flush=True)
    print(json.dumps({"bytes": _peak_bytes() - start}))


def write_all(folder, canary):
    """Write every hostile file and, of each that is small, damaged copies; file name -> what it is."""
    program = write_program(folder / "00000.pt2")
    names = {}

    def add(name, content, ending, copies=1):
        for seed in range(-1, copies if len(content) < 1 << 17 else 0):
            file = f"{len(names) + 1:05}{ending}"
            (folder / file).write_bytes(content if seed < 0 else mutate(content, seed))
            names[file] = name if seed < 0 else f"mutated {name}"

    for name, change, extra in programs(program, canary):
        copy = rewritten(program, folder / "copy", change, extra)
        add(name, copy.read_bytes(), ".pt2")
        copy.unlink()
    for name, content in checkpoints(canary):
        add(name, content, ".pth")
    weights = {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)}
    for name, content in safetensors(save(weights)):
        add(name, content, ".safetensors")
    add("mutated weights", save(weights), ".safetensors", 50)
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"model": weights, "best": np.float64(1)}, buffer, _use_new_zipfile_serialization=zipped)
        add("mutated checkpoint", buffer.getvalue(), ".pth", 50)
    add("mutated program", program.read_bytes(), ".pt2", 50)
    for seed in range(50):
        change = lambda n, c, seed=seed: mutate(c, seed) if n in (GRAPH_MEMBER, WEIGHTS_MEMBER) else c  # noqa: E731
        copy = rewritten(program, folder / "copy", change)
        add("mutated text", copy.read_bytes(), ".pt2", 0)
        copy.unlink()
    return names


def _peak_bytes():
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(Path(sys.argv[1]))
