"""From nothing to a written file in three commands: every row of the table, run as it is printed."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torchvision_ops  # noqa: F401
from onnx import TensorProto
from PIL import Image
from test_cli_onnx_any import node, saved
from tflite_models import fixture

from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH

ROOT = Path(__file__).parent.parent


def rows():
    """Kind of model -> its commands."""
    text = (ROOT / "docs/which-command.md").read_text(encoding="utf-8").partition("## From nothing")[2]
    table = re.findall(r"^\| (\w[^|]*) \| `(pip[^`]*)` \| `([^`]*)` \| `([^`]*)` \|$", text, re.M)
    return {kind: commands for kind, *commands in table}


def images(folder, size=(8, 8), mode="L"):
    folder.mkdir()
    pixels = np.load(CALIBRATION_PATH)["x"][:6]
    for number, values in enumerate(pixels):
        Image.fromarray(values).convert(mode).resize(size).save(folder / f"{number}.png")


def onnx(folder, name, heads):
    """Two convolutions over images of any size, and products with the weights of the heads."""
    nodes = [
        node("Conv", ["image", "stem.weight"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "body.weight"], ["c"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        *(node("MatMul", ["e", f"{head}.weight"], [head]) for head in heads),
    ]
    weights = {"stem.weight": (16, 3, 3, 3), "body.weight": (32, 16, 3, 3)}
    weights |= {f"{head}.weight": (32, width) for head, width in heads.items()}
    inputs = {"image": (TensorProto.FLOAT, ["n", 3, 16, 16])}
    saved(folder, nodes, weights, inputs, {head: ["n", width] for head, width in heads.items()}).rename(
        folder / name
    )
    images(folder / "images", (16, 16), "RGB")


def onnx_classifier(folder):
    onnx(folder, "vit.onnx", {"logits": 8})


def onnx_detector(folder):
    onnx(folder, "detector.onnx", {"pred_logits": 8, "pred_boxes": 128})


def tflite(folder):
    (folder / "vit.tflite").write_bytes(Path(fixture("vit")).read_bytes())
    np.savez(folder / "calib.npz", x=np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32))


def hugging_face(folder):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "day"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "bert")
    tokenizer.save(str(folder / "bert/tokenizer.json"))
    (folder / "texts.txt").write_text("a good film\na bad day\na good day\n")


MADE = {
    "ONNX classifier": onnx_classifier,
    "ONNX detector": onnx_detector,
    "Hugging Face folder": hugging_face,
    "TFLite": tflite,
}


def run_row(kind, folder, monkeypatch):
    monkeypatch.chdir(folder)
    install, quantize, look = rows()[kind]
    assert install.startswith("pip install 'lampq[")
    for command in (quantize, look):
        program, *words = shlex.split(command)
        assert program == "lampq"
        assert main(words) == 0, command
    assert Path(shlex.split(quantize)[-1]).exists()


def test_the_table_has_every_kind():
    assert set(rows()) == set(MADE)


@pytest.mark.parametrize("kind", sorted(MADE))
def test_three_commands_lead_to_a_file(kind, tmp_path, monkeypatch):
    MADE[kind](tmp_path)
    run_row(kind, tmp_path, monkeypatch)
