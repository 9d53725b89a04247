"""Samples made from a model alone: what they follow from, what they are like, and where they are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from numpy_model import NumpyModel
from torch_models import ConvNet, PackedViT, seeded

import lampq
from lampq.adapters.data import Preprocess
from lampq.adapters.synthetic import drawing, losses, refining
from lampq.adapters.synthetic.observation import Normalized
from lampq.adapters.synthetic.scenes import scenes
from lampq.adapters.synthetic.sheet import write_sheet
from lampq.adapters.synthetic.spaces import Pictures, Values
from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.observer import TapeObserver
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.runtime import Runtime

FEW = lampq.SynthesisRecipe(candidates=3, steps=3, batch=8)
CIFAR = Preprocess.preset("cifar10")


def read(module):
    return TorchModel.of(Runtime(module, input_shape=(3, 16, 16)), Provenance(path=Path("module")))


@pytest.fixture(scope="module")
def vit():
    return read(seeded(PackedViT))


def made(model, count=8, **choices):
    return lampq.synthetic(model, count, **{"preprocess": CIFAR, "recipe": FEW, **choices})


def test_scenes_depend_on_seed_and_number_alone():
    all_of_them = scenes(5, 12, 20, seed=3)
    assert all_of_them.shape == (5, 3, 12, 20) and all_of_them.dtype == np.float32
    np.testing.assert_array_equal(scenes(2, 12, 20, seed=3, first=3), all_of_them[3:])
    assert not np.array_equal(scenes(1, 12, 20, seed=4)[0], all_of_them[0])


def test_scenes_are_pictures_whose_power_falls_as_that_of_photographs_does():
    pictures = scenes(24, 64, 64, seed=0)
    assert pictures.min() >= 0 and pictures.max() <= 1
    grey = pictures.mean(1) - pictures.mean((1, 2, 3), keepdims=True)[:, 0]
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    rings = [power[(radius >= low) & (radius < 2 * low)].mean() for low in (1 / 32, 1 / 16, 1 / 8, 1 / 4)]
    slope = np.polyfit(np.log2([1, 2, 4, 8]), np.log2(rings), 1)[0]
    assert -3 < slope < -1.5
    assert np.corrcoef(pictures[:, 0].ravel(), pictures[:, 2].ravel())[0, 1] > 0.5


def test_selected_samples_cancel():
    deviations = np.array([[3.0, 0], [1, 0], [-1, 0.1], [0, 5], [2, 2]])
    assert sorted(drawing.cancelling(deviations, 2)) == [1, 2]
    assert sorted(drawing.cancelling(deviations, 9)) == [0, 1, 2, 3, 4]
    rows = np.random.default_rng(0).normal(size=(200, 6)) + 0.3
    best, any_of_them = rows[drawing.cancelling(rows, 50)].mean(0), rows[:50].mean(0)
    assert np.square(best).sum() < np.square(any_of_them).sum() / 10


def test_statistics_are_the_divergence_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    shift, scale = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -3.0])
    noise = torch.randn(64, 50, 2, generator=generator)
    noise = (noise - noise.mean((0, 1))) / noise.std((0, 1), correction=0)
    alike = Normalized(values=noise * scale + shift, shift=shift, scale=scale)
    assert float(losses.statistics_loss([alike])) == pytest.approx(0, abs=1e-5)
    other = Normalized(values=noise * scale * 2 + shift + 3 * scale, shift=shift, scale=scale)
    expected = (4 + 9 - 1 - np.log(4)) / 2
    assert float(losses.statistics_loss([other])) == pytest.approx(expected, rel=1e-4)


def test_confidence_is_the_mutual_information_of_samples_and_classes():
    sure = 50 * torch.eye(4).repeat(3, 1)
    assert float(losses.confidence_loss(sure)) == pytest.approx(-np.log(4), abs=1e-5)
    assert float(losses.confidence_loss(sure[:1].repeat(9, 1))) == pytest.approx(0, abs=1e-5)
    assert float(losses.confidence_loss(torch.zeros(5, 4))) == pytest.approx(0, abs=1e-5)


def test_patches_alike_and_unlike_have_more_entropy_than_patches_all_alike():
    generator = torch.Generator().manual_seed(0)
    alike = torch.ones(2, 16, 8) + 0.01 * torch.randn(2, 16, 8, generator=generator)
    varied = torch.randn(2, 16, 2, generator=generator)
    assert losses.entropy_loss([varied]) < losses.entropy_loss([alike]) - 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_pictures_are_fed_as_images_of_bytes_are(layout):
    channels = 1 if layout == "NHW" else 3
    record = Preprocess(
        mean=(0.1, 0.2, 0.3)[:channels],
        std=(0.5, 0.6, 0.7)[:channels],
        size=(5, 6),
        channels=channels,
        layout=layout,
        channel_order="BGR",
    )
    space = Pictures(preprocess=record)
    pictures = space.draw(2, seed=1)
    pixels = np.round(255 * pictures.transpose(0, 2, 3, 1)).astype(np.uint8)
    shape = {"NCHW": (None, channels, 5, 6), "NHWC": (None, 5, 6, channels), "NHW": (None, 5, 6)}[layout]
    spec = lampq.core.values.input_spec.InputSpec(name="x", shape=shape)
    expected = lampq.adapters.data.from_arrays(pixels, input_spec=spec, preprocess=record).inputs()["x"]
    fed = space.fed(torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255)))
    np.testing.assert_allclose(fed.numpy(), expected, atol=1e-5)


def test_an_offset_of_zeros_leaves_samples_where_they_are():
    for space in (Pictures(preprocess=CIFAR.for_input(SPEC)), Values(shape=(3, 8, 8))):
        start = torch.from_numpy(space.draw(2, seed=0)).clamp(0.1, 0.9)
        np.testing.assert_allclose(space.moved(start, torch.zeros_like(start), 0.5), start, atol=1e-6)


SPEC = lampq.core.values.input_spec.InputSpec(name="x", shape=(None, 3, 8, 8))


@pytest.mark.parametrize("batch_first", [True, False])
def test_normalizations_and_attentions_of_a_transformer_are_seen(batch_first):
    module = seeded(PackedViT, batch_first=batch_first)
    inputs = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = read(module).observer(lampq.core.values.batch.Batch.of(inputs.numpy()))({"x": inputs})
    results = []
    for block in module.transformer.layers:
        for norm in (block.norm1, block.norm2):
            norm.register_forward_hook(lambda module, _, result: results.append((module, result)))
    with torch.no_grad():
        torch.testing.assert_close(seen.outputs["output"], module(inputs))
    assert len(seen.normalized) == len(results) == 4
    for item, (norm, result) in zip(seen.normalized, results, strict=True):
        torch.testing.assert_close(item.values.flatten(), result.flatten(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(item.shift, norm.bias.detach())
    assert [tuple(tokens.shape) for tokens in seen.attended] == [(5, 17, 16)] * 2


def test_batch_normalizations_are_seen_by_channel():
    module = seeded(ConvNet)
    module.norm.bias.data.normal_()
    inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = read(module).observer(lampq.core.values.batch.Batch.of(inputs.numpy()))({"x": inputs})
    expected = module.norm(module.stem(inputs)).movedim(1, -1).reshape(4, 64, 8)
    torch.testing.assert_close(seen.normalized[0].values, expected, atol=1e-5, rtol=1e-4)


def statistics(module, inputs):
    """How far each channel of each layer normalization is from its shift and scale, in mean squares."""
    total = []

    def look(norm, _, result):
        standard = (result.detach() - norm.bias) / norm.weight
        total.append(
            standard.mean((0, 1)).square().mean() + (standard.square().mean((0, 1)) - 1).square().mean()
        )

    hooks = [m.register_forward_hook(look) for m in module.modules() if isinstance(m, torch.nn.LayerNorm)]
    with torch.no_grad():
        module(torch.from_numpy(inputs))
    for hook in hooks:
        hook.remove()
    return float(sum(total))


def test_samples_follow_the_normalizations_step_by_step(vit):
    drawn, selected, refined = (
        statistics(vit.module, made(vit, recipe=recipe).inputs()["x"])
        for recipe in (
            lampq.SynthesisRecipe(candidates=1, steps=0),
            lampq.SynthesisRecipe(candidates=6, steps=0, batch=8),
            lampq.SynthesisRecipe(candidates=6, steps=20, batch=8),
        )
    )
    assert refined < selected < drawn


def test_the_same_seed_makes_the_same_samples(vit):
    first, again, other = made(vit), made(vit), made(vit, seed=1)
    np.testing.assert_array_equal(first.inputs()["x"], again.inputs()["x"])
    assert first.reader.digest() == again.reader.digest() != other.reader.digest()
    assert first.labels() is None


def test_samples_are_refined_in_runs_that_memory_holds(vit, monkeypatch):
    """Gradients keep what the operators of a pass give, sample by sample."""
    runs = []
    observe = TapeObserver.__call__
    monkeypatch.setattr(
        TapeObserver, "__call__", lambda self, inputs: runs.append(len(inputs["x"])) or observe(self, inputs)
    )
    made(vit)
    assert set(runs) == {FEW.batch}
    passed = vit.observer(made(vit).inputs()).pass_bytes({"x": torch.zeros(3, 3, 16, 16)})
    for allowed, size in ((passed, 3), (1, 1)):
        monkeypatch.setattr(refining, "_PASS_BYTES", allowed)
        runs.clear()
        assert any("selected by" in note for note in made(vit).notes)
        assert set(runs) == {size}


def test_a_profile_says_that_its_data_are_synthetic(vit):
    data = made(vit)
    profile = lampq.profile(vit, data.inputs(), bits=(2, 4), fisher_draws=0, data_summary=data.summary())
    told = profile.provenance["data"]
    assert told["kind"] == told["source"] == "synthetic" and told["samples"] == 8 and told["seed"] == 0
    assert "selected and refined by statistics of 4 normalizations" in told["notes"][0]


def test_samples_are_kept_and_taken_again(vit, tmp_path, monkeypatch):
    first = made(vit, cache_folder=tmp_path)
    kept = list(tmp_path.iterdir())
    assert [path.suffix for path in kept] == [".npz"]
    made(vit, seed=1, cache_folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    made(read(seeded(PackedViT, classes=5)), cache_folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    with monkeypatch.context() as patched:
        patched.setattr(type(vit), "observer", None)
        again = made(vit, cache_folder=tmp_path)
    np.testing.assert_array_equal(first.inputs()["x"], again.inputs()["x"])
    assert first.notes == again.notes
    whole = kept[0].read_bytes()
    kept[0].write_bytes(whole[:100])
    np.testing.assert_array_equal(made(vit, cache_folder=tmp_path).inputs()["x"], first.inputs()["x"])
    assert len(kept[0].read_bytes()) > 100


def test_a_model_without_gradients_gets_noise_selected_by_its_classes_and_says_so():
    model = NumpyModel.random()
    data = lampq.synthetic(model, 12)
    assert data.inputs()["x"].shape == (12, 8)
    (note,) = data.notes
    assert "plain noise, selected by the balance of the classes (numpy models have none here)" in note
    decided = np.asarray(model.run(data.inputs())).argmax(1)
    assert len(set(decided)) == 4


def test_what_cannot_be_made_is_one_line(vit):
    with pytest.raises(lampq.RecordError, match="0 samples by seed 0"):
        lampq.synthetic(vit, 0)
    with pytest.raises(lampq.RecordError, match="steps -1"):
        lampq.SynthesisRecipe(steps=-1)
    with pytest.raises(lampq.AdapterError, match="no input is free"):
        lampq.synthetic(NumpyModel.random(), 4, constants={"x": np.zeros(8, np.float32)})


def test_a_contact_sheet_shows_every_picture(vit, tmp_path):
    from PIL import Image

    data = made(vit)
    write_sheet(data, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (3 * 66 + 2, 3 * 66 + 2, 3)
    np.testing.assert_array_equal(sheet[2:66:4, 68:132:4], data.pictures[1])
    with pytest.raises(lampq.RecordError, match=r"name a \.png file"):
        write_sheet(data, tmp_path / "sheet.jpg")
    with pytest.raises(lampq.RecordError, match="takes no pictures"):
        write_sheet(lampq.synthetic(NumpyModel.random(), 4), tmp_path / "none.png")


@pytest.fixture
def factory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "from torch_models import PackedViT, seeded\nbuild = lambda: seeded(PackedViT)\n"
    )
    return ["model.py:build", "--input-shape", "3x16x16", "--preset", "cifar10"]


def test_the_command_line_quantizes_and_evaluates_without_data(factory, capfd, tmp_path):
    flags = ["--bits", "2,4,8", "--fisher-draws", "0", "--avg-bits", "4", "--rounds", "0", "--quiet"]
    made = ["--data", "synthetic:16", "--plot", "sheet.png", "--profile-out", "p.json"]
    assert run(capfd, "quantize", *factory, *made, *flags, "-o", "q.safetensors") == (
        0,
        "q.safetensors\n",
        "",
    )
    assert lampq.Profile.read("p.json").provenance["data"]["kind"] == "synthetic"
    assert (tmp_path / "sheet.png").is_file() and len(list(tmp_path.glob("synthetic-*.npz"))) == 1
    words = ["eval", *factory, "--data", "synthetic:16", "--reference", "model.py:build", "--json", "--quiet"]
    code, out, err = run(capfd, *words)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["kl"] == 0 and told["top1"] is None
    assert any(note.startswith("synthetic data, made from the model") for note in told["notes"])


def test_the_command_line_refuses_a_sheet_of_other_data(factory, capfd, tmp_path):
    np.savez("x.npz", x=np.zeros((4, 3, 16, 16), np.float32))
    code, _, err = run(capfd, "profile", *factory, "--data", "x.npz", "--plot", "s.png", "-o", "p.json")
    assert code == 2 and err.count("\n") == 1 and "--plot shows synthetic data" in err
