"""The setting of several benchmarks: an exported CIFAR-10 model, images to search on and images to judge by."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from lampq import adapters
from lampq.adapters.data import Preprocess, read_data
from lampq.core.measuring.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A model and its data.

    Attributes:
        model: The model.
        calib: Preprocessed images to search on, shape (N, ...).
        val: Preprocessed images to judge by, shape (M, ...).
        labels: Their classes, shape (M,).
    """

    model: Model
    calib: np.ndarray
    val: np.ndarray
    labels: np.ndarray


def add_arguments(parser: argparse.ArgumentParser, flag: str) -> None:
    """`flag`, which names the model file, --calib and --val."""
    parser.add_argument(flag, dest="model", required=True)
    parser.add_argument("--calib", required=True)
    parser.add_argument("--val", required=True)


def read(args: argparse.Namespace, samples: int | None = None) -> Setting:
    """What the flags name; some of the images to search on, as the command line takes them, or all."""
    model = adapters.read(args.model)
    preprocess = Preprocess.preset("cifar10")
    calib = read_data(
        args.calib, input_specs=model.input_specs, preprocess=preprocess, samples=samples, seed=0
    )
    val = read_data(args.val, input_specs=model.input_specs, preprocess=preprocess)
    return Setting(
        model=model, calib=np.asarray(calib.inputs()), val=np.asarray(val.inputs()), labels=val.labels()
    )
