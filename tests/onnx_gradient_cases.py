"""Graphs run in PyTorch, and what comes of them."""

import numpy as np
import torch
from onnx import helper
from onnx_models import graph, saved

from lampq.adapters.onnx.gradients import TorchGraph
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.head import HeadChoice


def traced(model, sample):
    """The only judged output of a model as the interpreter gives it, not brought into canonical form."""
    (head,) = model.heads
    plain = model.with_heads([HeadChoice(name=head.name, role="values")])
    (output,) = TorchGraph(plain.variant)({"x": torch.from_numpy(sample)}).values()
    return output.detach().numpy()


def traces_of(model, batch, **options):
    return model.fisher(batch, fitted(model, batch), Draws(**options)).weight


def fitted(model, batch):
    return Readout.fit(model.heads, model.run(batch), None)


def ints(*values):
    array = np.array(values, np.int64)
    return array[0] if array.ndim > 1 else array


def single(tmp_path, name, shape, more, attributes):
    """One operator between an input of one sample and one output."""
    weights = {f"c{index}": np.asarray(value) for index, value in enumerate(more) if value is not None}
    names = ["" if value is None else f"c{index}" for index, value in enumerate(more)]
    node = helper.make_node(name, ["x", *names], ["y"], **attributes)
    flat = helper.make_node("Flatten", ["y"], ["logits"], axis=0)
    built = graph([node, flat], weights, inputs={"x": [1, *shape]}, outputs={"logits": [1, None]}, opset=22)
    return saved(built, tmp_path)
