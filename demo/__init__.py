"""A small trained Vision Transformer, and the handwritten digits to calibrate and validate it on.

The model (171,322 parameters, 8x8 pixels in, 10 logits out) was trained by examples/train_digits_vit.py. The
images are from Optical Recognition of Handwritten Digits by E. Alpaydin and C. Kaynak (1998, UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49), licensed CC BY 4.0, as scikit-learn ships them; their
17 levels of grey were spread over 0..255. The model was not trained on the 200 images for calibration, nor on
the 1,000 for validation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lampq.adapters.data import Preprocess, read_data
from lampq.core.values.input_spec import InputSpec

_FOLDER = Path(__file__).resolve().parent

MODEL_PATH = _FOLDER / "digits_vit.onnx"
"""The float model: ONNX, input `x` float32[?x1x8x8], output `logits` float32[?x10]."""

CALIBRATION_PATH = _FOLDER / "digits_calibration.npz"
"""200 images and labels, for the search."""

VALIDATION_PATH = _FOLDER / "digits_validation.npz"
"""1,000 images and labels, for the figures."""

PREPROCESS = Preprocess(mean=(0.305,), std=(0.376,))
"""From pixels 0..255 to the model's input: mean and deviation of the digits."""

TINY_PATH = _FOLDER / "tiny.tflite"
"""One fully connected layer of 8 x 8 random weights, for `lampq doctor` to run."""

FLOAT_TOP1 = 0.966
"""Accuracy of the float model on the validation images."""

_INPUT = InputSpec(name="x", shape=(None, 1, 8, 8))


def calibration() -> np.ndarray:
    """Inputs of the calibration images, float32, shape (200, 1, 8, 8)."""
    return np.asarray(read_data(CALIBRATION_PATH, input_spec=_INPUT, preprocess=PREPROCESS).inputs())


def validation() -> tuple[np.ndarray, np.ndarray]:
    """Inputs, float32, shape (1000, 1, 8, 8), and labels, int64, of the validation images."""
    inputs, labels = read_data(VALIDATION_PATH, input_spec=_INPUT, preprocess=PREPROCESS).load()
    if labels is None:
        raise RuntimeError(f"{VALIDATION_PATH} has lost its labels")
    return np.asarray(inputs), labels
