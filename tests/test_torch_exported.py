import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch_models import MODELS, make_batch, read_named

from lampq import adapters
from lampq.core.values.errors import AdapterError
from lampq.core.values.match import match


def export(path, name="windows", dynamic=True, count=2):
    build, shape = MODELS[name]
    example = torch.from_numpy(make_batch(shape, samples=count))
    shapes = ({0: torch.export.Dim("samples")},) if dynamic else None
    torch.export.save(torch.export.export(build(), (example,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return export(tmp_path_factory.mktemp("exported") / "net.pt2")


def rewritten(program, path, change):
    """A copy of an archive with `change(name, content)` applied to its members."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            for member, content in change(name, old.read(name)):
                new.writestr(member, content)
    return path


def edited(program, path, suffix, edit):
    def change(name, content):
        if name.endswith(suffix):
            document = json.loads(content)
            edit(document)
            content = json.dumps(document)
        return [(name, content)]

    return rewritten(program, path, change)


def test_a_program_is_the_module_it_came_from(program):
    model, batch = read_named("windows")
    found = adapters.read(program)
    assert found.input_spec.shape == (None, 3, 8, 8)
    assert found.format == "torch"
    np.testing.assert_allclose(found.run(batch), model.run(batch), rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in found.layers()] == [layer.name for layer in model.layers()]
    assert [layer.kind for layer in found.layers()] == [layer.kind for layer in model.layers()]
    assert match(model.layers(), found.layers()).complete


def test_a_program_of_a_fixed_batch(tmp_path):
    path = export(tmp_path / "net.pt2", name="packed", dynamic=False, count=3)
    model, batch = read_named("packed")
    found = adapters.read(path)
    assert found.input_spec.batch == 3
    np.testing.assert_allclose(found.run(batch), model.run(batch), rtol=1e-5, atol=1e-5)
    weight = np.zeros((4, 16), np.float32)
    ((_, _, logits),) = found.sweep(batch, [("head", 0, weight)])
    np.testing.assert_allclose(logits, model.with_weights({"head": weight}).run(batch), rtol=1e-5, atol=1e-5)


class Harm:
    ran = False

    def __reduce__(self):
        return (setattr, (Harm, "ran", True))


def refuse(path, words):
    with pytest.raises(AdapterError, match=words):
        adapters.read(path)
    assert not Harm.ran


def test_pickled_weights_are_refused(program, tmp_path):
    def edit(document):
        for entry in document["config"].values():
            entry["use_pickle"] = True

    refuse(edited(program, tmp_path / "a.pt2", "weights_config.json", edit), "pickled")


def test_pickled_constants_are_refused(program, tmp_path):
    def change(name, content):
        if name.endswith("constants_config.json"):
            entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
            folder = name.rpartition("/")[0]
            return [
                (name, json.dumps({"config": {"c": entry}})),
                (f"{folder}/opaque_obj_0", pickle.dumps(Harm())),
            ]
        return [(name, content)]

    refuse(rewritten(program, tmp_path / "a.pt2", change), "pickled")


@pytest.mark.parametrize(
    "target", ["torch.os.system", "torch.serialization.load", "_operator.attrgetter", "#x.y"]
)
def test_functions_that_are_no_operators_are_refused(program, tmp_path, target):
    def edit(document):
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    refuse(edited(program, tmp_path / "a.pt2", "models/model.json", edit), "no operator")


@pytest.mark.parametrize(
    "formula",
    ["__import__('os').system('true')", "exec('1')", "s0.__class__", "lambda: 0", "Symbol('s0').func"],
)
def test_formulas_that_are_more_than_sizes_are_refused(program, tmp_path, formula):
    def visit(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "expr_str":
                    node[key] = formula
                else:
                    visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    refuse(edited(program, tmp_path / "a.pt2", "models/model.json", visit), "no formula")


def test_names_that_are_code_are_refused(program, tmp_path):
    def edit(document):
        document["graph_module"]["graph"]["nodes"][0]["name"] = "x); import os #"

    refuse(edited(program, tmp_path / "a.pt2", "models/model.json", edit), "no name")


def test_compiled_code_is_refused(program, tmp_path):
    def change(name, content):
        root = name.partition("/")[0]
        return (
            [(name, content), (f"{root}/data/aotinductor/net/x.so", b"")]
            if "archive_format" in name
            else [(name, content)]
        )

    refuse(rewritten(program, tmp_path / "a.pt2", change), "compiled code")


def test_guards_are_never_evaluated(program, tmp_path):
    def edit(document):
        document["guards_code"] = ["__import__('test_torch_exported').Harm().__reduce__()[0](1)"]

    path = edited(program, tmp_path / "a.pt2", "models/model.json", edit)
    adapters.read(path).run(make_batch((3, 8, 8)))


def test_what_is_no_program(tmp_path):
    (tmp_path / "a.pt2").write_bytes(b"nothing")
    refuse(tmp_path / "a.pt2", "no readable exported program")
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/serialized_exported_program.json", "{}")
    refuse(tmp_path / "b.pt2", "export it again")
    refuse(tmp_path / "c.pt2", "no such file")


def test_a_program_of_two_inputs(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(16, 8)

        def forward(self, x, *, y):
            return self.line(x), y * 2

    net = Two()
    program = torch.export.export(net, (torch.ones(2, 16),), {"y": torch.ones(2, 3)})
    torch.export.save(program, tmp_path / "a.pt2")
    model = adapters.read(tmp_path / "a.pt2")
    assert [str(spec) for spec in model.input_specs] == ["x float32[2x16]", "y float32[2x3]"]
    given = {"x": torch.randn(5, 16).numpy(), "y": torch.randn(5, 3).numpy()}
    with torch.no_grad():
        expected = net(torch.from_numpy(given["x"]), y=torch.from_numpy(given["y"]))
    outputs = model.run(given)
    torch.testing.assert_close(torch.from_numpy(outputs["output_0"]), expected[0])
    assert [layer.name for layer in model.layers()] == ["line"]


def test_a_program_of_other_things_than_tensors(tmp_path):
    class Scaled(torch.nn.Module):
        def forward(self, x, factor):
            return x * factor

    torch.export.save(torch.export.export(Scaled(), (torch.ones(2, 3), 3)), tmp_path / "a.pt2")
    refuse(tmp_path / "a.pt2", "takes 3 beside batches of samples")


def test_a_division_that_would_end_the_process_is_refused(tmp_path):
    class Crash(torch.nn.Module):
        def forward(self, x):
            return torch.div(x.long() - 2**63, -1, rounding_mode="trunc")

    torch.export.save(torch.export.export(Crash(), (torch.zeros(2, 3),)), tmp_path / "a.pt2")
    refuse(tmp_path / "a.pt2", "'trunc' is no option")


def test_sizes_that_are_free_are_those_of_the_export(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(1))
    free = torch.export.Dim.AUTO
    program = torch.export.export(
        net, (torch.ones(2, 3, 12, 9),), dynamic_shapes=({0: free, 2: free, 3: free},)
    )
    torch.export.save(program, tmp_path / "a.pt2")
    assert adapters.read(tmp_path / "a.pt2").input_spec.shape == (None, 3, 12, 9)


def test_an_archive_of_another_name_and_without_samples(program, tmp_path):
    def change(name, content):
        renamed = name.replace("/model.", "/other.").replace("/model_", "/other_")
        return [(renamed, b"" if "sample" in name else content)]

    path = rewritten(program, tmp_path / "a.pt2", change)
    batch = make_batch((3, 8, 8))
    np.testing.assert_array_equal(adapters.read(path).run(batch), adapters.read(program).run(batch))
