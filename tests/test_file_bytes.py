"""The bytes that a plan promises are those of the file, and a budget in bytes is kept and spent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto
from onnx_graphs import network, transformer
from onnx_models import exported, saved
from test_onnx_any_weight import KINDS, _inputs
from test_onnx_large import network as large_network
from tflite_models import fixture
from torch_models import checkpointed, folder

import lampq
from lampq.adapters.onnx import large, size
from lampq.core.values.errors import BudgetError
from lampq.verbs.formats import size_bytes

WIDTHS = tuple(range(2, 9))
# name: what makes the file, what is measured
ONNX = {
    "packed": (transformer, {}),
    "whole": (transformer, {"container": "int8"}),
    "blocks": (transformer, {"block": 8}),
}
