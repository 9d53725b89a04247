"""How far PP-OCRv4's reading of drawn lines is from being another one, and what widths do to it.

    python benchmarks/reader_margins.py --cache FOLDER

Lines and model are those of benchmarks/tasks.py. A position is read otherwise where another class comes first; its
margin is what the first of the float model is ahead of the second, in nats. One width everywhere, codes for the layers'
inputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import report
import tasks
from zoo import packages
from zoo.lines import rendered

import lampq
from lampq.metrics.edit_distance import edit_distance

# Bits, lines that codes are chosen for, and layers that stay float.
CASES = (
    (8, 32, ""),
    (8, 128, ""),
    (8, 32, "conv2d_157.w_0"),
    (6, 32, ""),
    (6, 128, ""),
    (6, 32, "conv2d_157.w_0"),
)
COLUMNS = ("bits", "lines for codes", "float", "KL", "positions", "their margins up to", "lines", "symbols")


def chances(path: Path, lines: np.ndarray) -> np.ndarray:
    """Probabilities by line, position and class, by stock ONNX Runtime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: line[None]})[0] for line in lines]).astype(np.float64)


def reading(positions: np.ndarray) -> list[int]:
    """Classes of a line: repeated ones once, class 0 not at all."""
    best = positions.argmax(axis=1).tolist()
    return [c for c, before in zip(best, [0, *best], strict=False) if c not in (0, before)]


def as_written(path: Path, found: np.ndarray, texts: list[str]) -> int:
    """How many lines are read as they were written, by the characters that the file names."""
    named = ort.InferenceSession(str(path)).get_modelmeta().custom_metadata_map["character"]
    characters = ["", *named.splitlines(), " "]
    read = ["".join(characters[c] for c in reading(positions)) for positions in found]
    return sum(one == other for one, other in zip(read, texts, strict=False))


def main() -> None:
    """Judge every case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    folder = packages.fetch(tasks.REQUIREMENTS, args.cache)
    path = folder / "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    lines, texts = rendered(tasks.LINES + 128)
    judged, others = lines[: tasks.LINES], lines[tasks.LINES :]
    exact = chances(path, judged)
    white, _ = rendered(tasks.LINES, close=False)
    right = [as_written(path, found, texts) for found in (exact, chances(path, white))]
    second, first = np.sort(exact, axis=-1)[..., -2:].transpose(2, 0, 1)
    margin = np.log(first) - np.log(second)
    own, rows = lampq.read(path), []
    for bits, count, kept in CASES:
        profile = lampq.profile(own, bits=(bits,), keep=[kept] if kept else [])
        plan = dataclasses.replace(tasks.uniform(profile, bits), rounding="inputs")
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "q.onnx"
            lampq.apply(own, plan, out, batch=others[:count])
            found = chances(out, judged)
        changed = exact.argmax(axis=-1) != found.argmax(axis=-1)
        tiny = np.finfo(np.float32).tiny
        kl = (exact * (np.log(exact + tiny) - np.log(found + tiny))).sum(axis=-1).mean()
        errors = [edit_distance(reading(a), reading(b)) for a, b in zip(found, exact, strict=True)]
        most = f"{margin[changed].max(initial=0):.2f}"
        rows.append(
            (bits, count, kept, f"{kl:.5f}", int(changed.sum()), most, sum(map(bool, errors)), sum(errors))
        )
        print(*rows[-1], flush=True)
    close = [f"{int((margin < limit).any(axis=1).sum())} below {limit}" for limit in (0.02, 0.05, 0.1)]
    body = report.table(COLUMNS, rows) + (
        f"\n\n{len(judged)} lines, {margin.size} positions; lines with a position whose margin is small already in the "
        f"float model: {', '.join(close)} nats. The float model reads {right[0]} lines as they were written, and "
        f"{right[1]} where they are drawn on white from edge to edge."
    )
    report.write("reader_margins", "Margins of read lines", body, packages=("numpy", "onnxruntime"))


if __name__ == "__main__":
    main()
