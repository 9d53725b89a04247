"""Calibration and evaluation data: folders of images, .npz files, and functions that yield batches.

All three give the same: a `Dataset`, whose batches are ready to be fed to the model.
"""

from lampq.adapters.data.arrays import check_labels
from lampq.adapters.data.batch import Batch
from lampq.adapters.data.dataset import Dataset, from_arrays, read_data
from lampq.adapters.data.function import load_function
from lampq.adapters.data.hugging_face import find_preprocess
from lampq.adapters.data.override import preprocess_for
from lampq.adapters.data.preprocess import PRESETS, Preprocess

__all__ = [
    "PRESETS",
    "Batch",
    "Dataset",
    "Preprocess",
    "check_labels",
    "find_preprocess",
    "from_arrays",
    "load_function",
    "preprocess_for",
    "read_data",
]
