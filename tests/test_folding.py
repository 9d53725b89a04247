"""Plans of models with batch norms on files into which an exporter has folded these."""

import dataclasses

import numpy as np
import pytest
import torch
from onnx.helper import make_node
from onnx_models import graph, normal, saved

import lampq
from lampq.adapters.torch import read as torch_read
from lampq.core.values.errors import PlanError
from lampq.core.values.match import match
from lampq.verbs.apply import fit_to


class Net(torch.nn.Module):
    """Two convolutions with a batch norm each, the first of which folds; the second's output is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.two = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.bn1, self.bn2 = torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 10)
        for norm in (self.bn1, self.bn2):
            torch.nn.init.uniform_(norm.weight, -2, 2)
            torch.nn.init.uniform_(norm.running_var, 0.2, 2)
            torch.nn.init.normal_(norm.running_mean)

    def forward(self, x):
        x = self.two(self.bn1(self.one(x)).relu())
        return self.head((self.bn2(x) + x).mean((2, 3)))


def folded_file(net, folder, *, trained=0.0):
    """The network with its first batch norm folded in, written by hand; `trained` changes all weights a little."""
    arrays = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    scale = {n: arrays[f"{n}.weight"] / np.sqrt(arrays[f"{n}.running_var"] + 1e-5) for n in ("bn1", "bn2")}
    shift = {n: arrays[f"{n}.bias"] - arrays[f"{n}.running_mean"] * scale[n] for n in scale}
    weights = {
        "one.weight": arrays["one.weight"] * scale["bn1"][:, None, None, None],
        "one.bias": shift["bn1"],
        "two.weight": arrays["two.weight"],
        "two.bias": arrays["two.bias"],
        "scale": scale["bn2"][:, None, None],
        "shift": shift["bn2"][:, None, None],
        "head.weight": arrays["head.weight"],
        "head.bias": arrays["head.bias"],
    }
    weights = {
        name: (array * (1 + trained * normal(*array.shape))).astype(np.float32)
        for name, array in weights.items()
    }
    nodes = [
        make_node("Conv", ["x", "one.weight", "one.bias"], ["a"], pads=[1, 1, 1, 1], name="/one/Conv"),
        make_node("Relu", ["a"], ["b"]),
        make_node("Conv", ["b", "two.weight", "two.bias"], ["c"], pads=[1, 1, 1, 1], name="/two/Conv"),
        make_node("Mul", ["c", "scale"], ["d"]),
        make_node("Add", ["d", "shift"], ["e"]),
        make_node("Add", ["e", "c"], ["f"]),
        make_node("GlobalAveragePool", ["f"], ["g"]),
        make_node("Flatten", ["g"], ["h"]),
        make_node("Gemm", ["h", "head.weight", "head.bias"], ["y"], transB=1, name="/head/Gemm"),
    ]
    made = graph(nodes, weights, inputs={"x": ["n", 3, 8, 8]}, outputs={"y": ["n", 10]})
    return lampq.read(saved(made, folder, f"folded{trained}.onnx"))


@pytest.fixture(scope="module")
def net():
    return Net().eval()


@pytest.fixture(scope="module")
def plan(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    profile = lampq.profile(torch_read(net, input_shape=(3, 8, 8)))
    profile.write(path.with_name("profile.json"))
    assert [layer.folded is not None for layer in profile.layers] == [True, False, False]
    lampq.plan(lampq.Profile.read(path.with_name("profile.json")), average_bits=4).write(path)
    return lampq.Plan.read(path)


def test_a_plan_fits_a_file_with_its_batch_norms_folded(net, plan, tmp_path):
    model = folded_file(net, tmp_path)
    batch = normal(4, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(
            model.run(batch), net(torch.from_numpy(batch)).numpy(), rtol=1e-3, atol=1e-4
        )
    fitted = fit_to(model, plan)
    assert fitted.widths == plan.widths
    lampq.apply(model, plan, tmp_path / "q.onnx")
    # And the other way round: what was planned on the folded file fits the module.
    theirs = lampq.plan(lampq.profile(model), average_bits=4)
    assert fit_to(torch_read(net, input_shape=(3, 8, 8)), theirs).widths == theirs.widths
    found = match(plan.layers, model.layers())
    assert [m.how for m in found.matches] == ["folded", "weight", "weight"]


def test_plans_without_that_identity_are_told_of_names(net, plan, tmp_path):
    model = folded_file(net, tmp_path)
    old = dataclasses.replace(
        plan, layers=tuple(dataclasses.replace(layer, folded=None) for layer in plan.layers)
    )
    with pytest.raises(
        PlanError, match=r"1 of them have the same name and size on both sides, and --by-name"
    ):
        fit_to(model, old)
    assert fit_to(model, old, by_name=True).widths == plan.widths
    with pytest.raises(
        PlanError, match=r"none of its 3 layers is in .*; 3 have the same name and size: pass --by-name"
    ):
        fit_to(folded_file(net, tmp_path, trained=0.3), plan)
