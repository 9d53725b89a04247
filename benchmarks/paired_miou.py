"""Is a plan better than uniform widths by mean IoU, or is it chance? Both judged on the same many images.

    python benchmarks/paired_miou.py --cache FOLDER

The segmenter of examples/train_shapes_detector.py in FOLDER/shapes, as benchmarks/tasks.py trains it. Plans are of
256 images, with codes for their inputs, and each is written with these codes and with corrected ones. Intervals
are of the difference, over draws of the images with replacement.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import report
import tasks

import lampq
from lampq.core.measuring.encoding import with_rounding

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import train_shapes_detector as example

DRAWS = 1000
COLUMNS = (
    "bits",
    "rounding",
    "uniform",
    "lampq",
    "difference",
    "95 % of draws",
    "first 512: uniform",
    "lampq",
)


def confusions(path: Path, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How many pixels of each class are taken for which, image by image, shape (N, C, C), by stock ONNX Runtime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, counts = session.get_inputs()[0].name, []
    for start in range(0, len(images), 64):
        (logits,) = session.run(None, {name: images[start : start + 64]})
        axis = 1 if logits.shape[1] < logits.shape[-1] else 3
        classes = logits.shape[axis]
        pairs = classes * masks[start : start + 64].astype(np.int64) + logits.argmax(axis)
        counts += [
            np.bincount(each.ravel(), minlength=classes**2).reshape(classes, classes) for each in pairs
        ]
    return np.stack(counts)


def mean_iou(counts: np.ndarray) -> float:
    """Over the classes that any pixel has or is taken for."""
    whole = counts.sum(axis=0)
    shared = whole.diagonal()
    union = whole.sum(axis=0) + whole.sum(axis=1) - shared
    return float((shared[union > 0] / union[union > 0]).mean())


def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Ends that 95 % of draws of the difference of the two lie between."""
    rng, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        # How often each image is drawn.
        times = rng.multinomial(len(one), np.full(len(one), 1 / len(one)))[:, None, None]
        found.append(mean_iou(one * times) - mean_iou(other * times))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Profile once, plan at each width, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--judged", type=int, default=4096, help="images to judge by (4096)")
    parser.add_argument("--bits", default="4,3", help="widths (4,3)")
    args = parser.parse_args()
    folder = args.cache / "shapes"
    scenes, calibration = example.draw(args.judged, seed=3), example.draw(tasks.CALIBRATION, seed=2)
    images, batch = ((drawn.images / np.float32(255)).astype(np.float32) for drawn in (scenes, calibration))
    own = lampq.read(folder / "segmenter.onnx")
    exact = mean_iou(confusions(own.path, images, scenes.masks))
    began = time.process_time()
    model = with_rounding(own, "inputs", None, batch)
    profile = lampq.profile(model, batch, bits=range(2, 9), rounding="inputs", fisher_draws=0)
    rows = []
    for bits in map(int, args.bits.split(",")):
        plans = {
            "uniform": tasks.uniform(profile, bits),
            "lampq": tasks._best(model, profile, batch, bits),
        }
        for rounding in ("inputs", "corrected"):
            counts = {
                name: _judged(own, dataclasses.replace(plan, rounding=rounding), batch, images, scenes.masks)
                for name, plan in plans.items()
            }
            uniform, ours = counts["uniform"], counts["lampq"]
            low, high = interval(ours, uniform)
            some = f"{mean_iou(uniform[:512]):.4f}", f"{mean_iou(ours[:512]):.4f}"
            whole = f"{mean_iou(uniform):.5f}", f"{mean_iou(ours):.5f}"
            gain = f"{mean_iou(ours) - mean_iou(uniform):+.5f}"
            rows.append((bits, rounding, *whole, gain, f"{low:+.5f} to {high:+.5f}", *some))
            print(*rows[-1], f"{time.process_time() - began:.0f} s", flush=True)
    body = report.table(COLUMNS, rows) + (
        f"\n\nSegmenter of shapes, weights only, mean IoU of {len(images)} images; float {exact:.5f}."
    )
    report.write("paired_miou", "Mean IoU of plans, paired", body, packages=("numpy", "onnxruntime"))


def _judged(own, plan, batch, images, masks) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "q.onnx"
        lampq.apply(own, plan, out, batch=batch)
        return confusions(out, images, masks)


if __name__ == "__main__":
    main()
