"""Let torchvision be imported where its compiled operators do not fit the installed torch.

Its wheels are built for CUDA; beside a CPU build of torch its library does not load, and importing it then fails on
two operators that no test uses. Declaring them is enough.
"""

import importlib.util

import torch

# Tiny models: a second thread costs more than it gives.
torch.set_num_threads(1)

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = torch.library.Library("torchvision", "FRAGMENT")
if importlib.util.find_spec("torchvision") is not None and not hasattr(torch.ops.torchvision, "nms"):
    for schema in _SCHEMAS:
        _library.define(schema)
