"""Calibration and evaluation data: folders of images, .npz files, texts, and functions that yield batches.

All give the same: a `Dataset`, whose batches are ready to be fed to the model.
"""

from lampq.adapters.data.arrays import check_labels
from lampq.adapters.data.constants import parse_constant
from lampq.adapters.data.dataset import Dataset
from lampq.adapters.data.function import load_function
from lampq.adapters.data.hugging_face import find_preprocess
from lampq.adapters.data.labelled import Labelled
from lampq.adapters.data.override import preprocess_for
from lampq.adapters.data.preprocess import PRESETS, Preprocess
from lampq.adapters.data.reading import from_arrays, read_data
from lampq.adapters.data.wanted import image_input

__all__ = [
    "PRESETS",
    "Dataset",
    "Labelled",
    "Preprocess",
    "check_labels",
    "find_preprocess",
    "from_arrays",
    "image_input",
    "load_function",
    "parse_constant",
    "preprocess_for",
    "read_data",
]
