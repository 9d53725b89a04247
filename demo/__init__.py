"""A small trained Vision Transformer, and the handwritten digits to calibrate and validate it on.

The model (171,322 parameters, 8x8 pixels in, 10 logits out) was trained by examples/train_digits_vit.py. The
images are from Optical Recognition of Handwritten Digits by E. Alpaydin and C. Kaynak (1998, UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49), licensed CC BY 4.0, as scikit-learn ships them; their
17 levels of grey were spread over 0..255. The model was not trained on the 200 images for calibration, nor on
the 1,000 for validation.
"""

from __future__ import annotations

from pathlib import Path

from lampq.adapters.data.preprocess import Preprocess

_FOLDER = Path(__file__).resolve().parent

MODEL = _FOLDER / "digits_vit.onnx"
"""The float model: ONNX, input `x` float32[?x1x8x8], output `logits` float32[?x10]."""

CALIBRATION = _FOLDER / "digits_calibration.npz"
"""200 images and labels, for the search."""

VALIDATION = _FOLDER / "digits_validation.npz"
"""1,000 images and labels, for the figures."""

PREPROCESS = Preprocess(mean=(0.305,), std=(0.376,))
"""From pixels 0..255 to the model's input: mean and deviation of the digits."""

FLOAT_TOP1 = 0.966
"""Accuracy of the float model on `VALIDATION`."""
