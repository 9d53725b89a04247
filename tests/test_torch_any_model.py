import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_models import seeded

from lampq.adapters import read as read_any
from lampq.adapters.torch import read
from lampq.adapters.torch.fisher import fisher_sums
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.cli import main
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice
from lampq.verbs.profile import profile


class Detector(nn.Module):
    """Two inputs; classes, boxes, a mask behind a sigmoid, and a choice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.meta = nn.Linear(10, 8)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.cls, self.box = nn.Linear(8, 16), nn.Linear(8, 16)

    def forward(self, image, meta):
        features = functional.relu(self.stem(image))
        pooled = features.mean((2, 3)) * torch.tanh(self.meta(meta))
        classes = self.cls(pooled)
        mask = torch.sigmoid(self.up(features).mean(1))
        return {
            "classes": classes,
            "found": {"boxes": self.box(pooled), "mask": mask},
            "label": classes.argmax(1),
        }


class Tagger(nn.Module):
    """Recurrent layers in both directions, over tokens."""

    def __init__(self, table=40):
        super().__init__()
        self.embed = nn.Embedding(table, 8)
        self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, tokens):
        x = self.lstm(self.embed(tokens))[0]
        return self.out(self.gru(x.transpose(0, 1))[0].transpose(0, 1))


class Spreading(nn.Module):
    """Transposed convolutions: along a line, one channel at a time, and along a volume."""

    def __init__(self):
        super().__init__()
        self.line = nn.ConvTranspose1d(4, 8, 5, 3, 1, output_padding=1)
        self.apart = nn.ConvTranspose1d(8, 8, 8, 2, groups=8, dilation=2)
        self.grouped = nn.ConvTranspose1d(8, 8, 4, groups=2)
        self.volume = nn.ConvTranspose3d(2, 4, 3)
        self.out = nn.Linear(4, 16)

    def forward(self, x):
        x = torch.tanh(self.grouped(torch.tanh(self.apart(torch.tanh(self.line(x))))))
        return self.out(torch.tanh(self.volume(x[..., :64].reshape(-1, 2, 4, 8, 8))).mean((2, 3, 4)))


class Chosen(nn.Module):
    """Boxes chosen by index: nothing that comes out moves by degrees."""

    def __init__(self):
        super().__init__()
        self.body, self.cls, self.box = nn.Linear(10, 16), nn.Linear(16, 12), nn.Linear(16, 24)

    def forward(self, x):
        x = torch.relu(self.body(x))
        scores = self.cls(x).sigmoid()
        best, places = scores.topk(3)
        boxes = self.box(x).reshape(len(x), 12, 2)
        return boxes.gather(1, places[..., None].expand(-1, -1, 2)), best, places


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(samples=4, length=7, seed=0):
    return np.random.default_rng(seed).integers(0, 40, (samples, length))


DETECTOR = {"image": normal(5, 3, 8, 8), "meta": normal(5, 10, seed=1)}
CASES = {
    "detector": (Detector, DETECTOR),
    "tagger": (Tagger, {"tokens": tokens()}),
    "spreading": (Spreading, {"x": normal(3, 4, 8)}),
}


def known(name):
    """A model of `CASES` that knows its data, the module, and the data."""
    build, data = CASES[name]
    module = seeded(build)
    return read(module).with_examples(data), module, data


def as_tensors(data, place=slice(None)):
    return {name: torch.from_numpy(np.array(array[place])) for name, array in data.items()}


def canonical_outputs(module, inputs):
    """By hand: what is judged of each module, logits in place of probabilities."""
    output = module(**inputs)
    if isinstance(output, torch.Tensor):
        return {"output": output}
    mask = output["found"]["mask"]
    return {
        "classes": output["classes"],
        "found.boxes": output["found"]["boxes"],
        "found.mask": mask.log() - (1 - mask).log(),
    }


@pytest.mark.parametrize("name", CASES)
def test_outputs_by_name_are_those_of_the_module(name):
    model, module, data = known(name)
    outputs = model.run(data)
    with torch.no_grad():
        expected = canonical_outputs(module, as_tensors(data))
    assert set(outputs.names) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_allclose(outputs[key], tensor.numpy(), rtol=1e-4, atol=1e-5)


def test_roles_inputs_and_places_of_outputs():
    model, _, _ = known("detector")
    assert {head.name: head.role for head in model.heads} == {
        "classes": "classes",
        "found.boxes": "values",
        "found.mask": "probabilities",
        "label": "ignore",
    }
    assert [str(spec) for spec in model.input_specs] == ["image float32[?x3x?x?]", "meta float32[?x10]"]
    assert {spec.name: spec.producer for spec in model.output_specs} == {
        "classes": "Gemm",
        "found.boxes": "Gemm",
        "found.mask": "Sigmoid",
        "label": "ArgMax",
    }
    (head,) = known("tagger")[0].heads
    assert (head.role, head.axis) == ("classes", -1)


@pytest.mark.parametrize("name", CASES)
def test_fisher_traces_of_several_outputs_and_every_kind_of_weight(name):
    model, module, data = known(name)
    reference = measure_reference(model, data)
    sums = fisher_sums(model.variant, reference.inputs, reference.readout, Draws(count=2), batch_size=2)
    parameters = {layer: module.get_parameter(p) for layer, p in model.parameters.items()}
    expected = dict.fromkeys(parameters, 0.0)
    # One sample, one direction, one gradient at a time.
    for n in range(reference.inputs.samples):
        one = reference.take([n])
        outputs = canonical_outputs(module, as_tensors(data, slice(n, n + 1)))
        vectors = reference.readout.directions(one.outputs, Draws(count=2, samples=np.array([n])))
        for vector in vectors:
            parts = [
                (outputs[k].double() * torch.from_numpy(np.array(v))).sum()
                for k, v in vector.groups[0].items()
            ]
            with torch.backends.mkldnn.flags(enabled=False):
                gradients = torch.autograd.grad(
                    torch.stack(parts).sum(), list(parameters.values()), retain_graph=True
                )
            for layer, gradient in zip(parameters, gradients, strict=True):
                expected[layer] += float(gradient.double().square().sum())
    for layer, square in expected.items():
        assert sums.weight[layer] == pytest.approx(square, rel=1e-3), layer


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_gives_what_replaced_weights_give(name):
    model, _, data = known(name)
    changed = [(layer.name, 0, model.weight(layer.name) * np.float32(1.1)) for layer in model.layers()]
    for layer, _, outputs in model.sweep(data, changed):
        expected = model.with_weights({layer: model.weight(layer) * np.float32(1.1)}).run(data)
        for key in expected.names:
            np.testing.assert_allclose(outputs[key], expected[key], rtol=1e-4, atol=1e-5)


def test_weights_that_count():
    assert {layer.name for layer in known("tagger")[0].layers()} >= {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_hh_l1_reverse",
        "gru.weight_ih_l0",
        "gru.weight_hh_l0",
    }
    model, _, _ = known("spreading")
    axes = {layer.name: layer.channel_axis for layer in model.layers()}
    assert axes == {"line": 1, "apart": 0, "volume": 1, "out": 0}
    assert dict(model.skipped)["grouped.weight"] == "its output channels have no axis of their own"


def test_large_embedding_tables_count_and_small_ones_are_listed():
    large = read(seeded(Tagger, table=512))
    assert large.layers()[0].name == "embed"
    assert (
        "embedding table" in dict(read(seeded(Tagger, table=512), embeddings=False).skipped)["embed.weight"]
    )
    assert dict(read(seeded(Tagger)).skipped)["embed.weight"] == "an embedding table of only 320 weights"


def test_samples_of_several_shapes_run_group_by_group():
    module = seeded(Tagger)
    groups = [{"tokens": tokens(3, 5)}, {"tokens": tokens(2, 9, seed=1)}]
    model = read(module).with_examples(Batch(groups))
    outputs = model.run(Batch(groups))
    for group, output in zip(groups, outputs.groups, strict=True):
        with torch.no_grad():
            expected = module(torch.from_numpy(group["tokens"]))
        np.testing.assert_allclose(output["output"], expected, rtol=1e-4, atol=1e-5)
    assert (profile(model, Batch(groups), bits=(4,)).kl >= 0).all()


def test_outputs_that_jump_are_judged_before_they_do():
    module = seeded(Chosen)
    model = read(module)
    roles = {head.name: head.role for head in model.heads}
    assert roles == {
        "output_0": "ignore",
        "output_1": "ignore",
        "output_2": "ignore",
        "sigmoid": "probabilities",
        "view": "values",
    }
    stands_for = {spec.name: spec.stands_for for spec in model.output_specs}
    assert stands_for["sigmoid"] == ("output_0", "output_1", "output_2")
    assert stands_for["view"] == ("output_0",)
    x = normal(4, 10)
    outputs = model.run(x)
    with torch.no_grad():
        expected = module.cls(torch.relu(module.body(torch.from_numpy(x))))
    np.testing.assert_allclose(outputs["sigmoid"], expected, rtol=1e-4, atol=1e-5)


def test_any_submodule_may_be_named_as_output():
    model, module, data = known("detector")
    chosen = model.with_heads(
        [HeadChoice(name="meta", role="values"), HeadChoice(name="classes", role="ignore")]
    )
    outputs = chosen.run(data)
    assert set(outputs.names) == {"found.boxes", "found.mask", "meta"}
    with torch.no_grad():
        expected = module.meta(torch.from_numpy(data["meta"]))
    np.testing.assert_allclose(outputs["meta"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(AdapterError, match="no output or submodule 'nowhere'"):
        model.with_heads([HeadChoice(name="nowhere", role="values")])


def test_inputs_that_are_missing_or_unknown_are_named():
    model = read(seeded(Detector))
    with pytest.raises(AdapterError, match="takes image, meta; the batch lacks meta"):
        model.run({"image": DETECTOR["image"]})
    with pytest.raises(AdapterError, match="also has more"):
        model.run({**DETECTOR, "more": DETECTOR["meta"]})
    with pytest.raises(AdapterError, match="image, meta; their shapes cannot be guessed: measure with data"):
        read(seeded(Detector)).layers()
    stated = read(seeded(Detector), input_shape={"image": (3, 8, 8), "meta": (10,)})
    assert [spec.shape for spec in stated.input_specs] == [(None, 3, 8, 8), (None, 10)]


def test_outputs_of_the_whole_batch_are_not_judged():
    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(10, 16)

        def forward(self, x):
            y = functional.normalize(self.line(x), dim=-1)
            return {"embeds": y, "similar": y @ y.T, "scale": self.line.weight.sum()}

    model = read(seeded(Compared))
    assert {head.name: head.role for head in model.heads} == {
        "embeds": "direction",
        "similar": "ignore",
        "scale": "ignore",
    }
    assert {head.name: head.reason for head in model.heads}[
        "similar"
    ] == "its shape depends on the number of samples"
    assert model.output_specs[0].producer == "LpNormalization"


def test_exports_have_the_names_and_all_outputs_and_the_shape_of_the_data(tmp_path):
    model, module, data = known("detector")
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [given.shape[1:] for given in session.get_inputs()] == [[3, 8, 8], [10]]
    assert [given.name for given in session.get_outputs()] == [
        "classes",
        "found.boxes",
        "found.mask",
        "label",
    ]
    classes, boxes, _, label = session.run(None, data)
    with torch.no_grad():
        expected = module(**as_tensors(data))
    np.testing.assert_allclose(classes, expected["classes"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(boxes, expected["found"]["boxes"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(label, expected["label"])


FACTORIES = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16)
    return nn.Sequential(*layers)

def lines():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 28, 16))
"""


def test_data_decide_the_shape_of_a_factory_and_of_its_export(tmp_path, capsys):
    (tmp_path / "nets.py").write_text(FACTORIES)
    np.savez(tmp_path / "images.npz", x=normal(6, 3, 12, 12))
    source, data = f"{tmp_path / 'nets.py'}:build", str(tmp_path / "images.npz")
    profile_file, plan_file = str(tmp_path / "p.json"), str(tmp_path / "plan.json")
    assert main(["profile", source, "--data", data, "--bits", "4,8", "-o", profile_file, "--quiet"]) == 0
    assert main(["plan", profile_file, "--avg-bits", "4", "-o", plan_file]) == 0
    out = tmp_path / "q.onnx"
    assert main(["apply", source, plan_file, "--data", data, "--to", "onnx", "-o", str(out)]) == 0
    assert read_any(out).input_spec.shape[1:] == (3, 12, 12)
    capsys.readouterr()


def test_shapes_that_nothing_tells_can_be_said(tmp_path, capsys):
    (tmp_path / "nets.py").write_text(FACTORIES)
    source = f"{tmp_path / 'nets.py'}:lines"
    assert main(["inspect", source]) == 2
    assert "--input-shape" in capsys.readouterr().err
    assert main(["inspect", source, "--input-shape", "4x30"]) == 0
    # Or by the data: nothing has to be said then.
    np.savez(tmp_path / "lines.npz", x=normal(6, 4, 30))
    command = ["profile", source, "--data", str(tmp_path / "lines.npz"), "--bits", "4", "--quiet"]
    assert main([*command, "-o", str(tmp_path / "p.json")]) == 0
    capsys.readouterr()
