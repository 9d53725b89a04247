"""ONNX models: `read` gives one."""

from lampq.adapters.onnx.format import read as read
from lampq.adapters.onnx.format import read_stored as read_stored
