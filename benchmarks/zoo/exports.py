"""Transformers of random weights, small: as Hugging Face folders and as ONNX files with a free batch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn
from zoo import pictures
from zoo.subject import JUDGED, Arrays, Meaning, Subject, parts

_SIDE, _VOCABULARY, _LENGTH = 64, 500, 12
_SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
# Wider than usual, so that outputs differ from one sample to the next.
_SPREAD = {"initializer_range": 0.1}


class _Named(nn.Module):
    """A model that takes some inputs by place and gives some outputs."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, in order."""
        found = self.model(**dict(zip(self.inputs, arrays, strict=True)), return_dict=True)
        return tuple(found[name] for name in self.outputs)


def export(
    model: nn.Module, path: Path, examples: Mapping[str, torch.Tensor], outputs: Sequence[str]
) -> Path:
    """Write an ONNX file with a free batch."""
    batch = torch.export.Dim("batch", min=1, max=512)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Named(model.eval(), list(examples), outputs).eval(), tuple(examples.values()), path, dynamo=True,
            input_names=list(examples), output_names=list(outputs), external_data=False, verbose=False,
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
        )  # fmt: skip
    return path


def text_encoder(weights: Path, path: Path, *, tokens: int = 16) -> Path:
    """The ONNX file of a BERT's hidden states, from a folder of weights."""
    if not path.is_file():
        model = transformers.AutoModel.from_pretrained(weights, attn_implementation="eager")
        ids = torch.randint(0, 1000, (2, tokens))
        examples = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        export(model, path, examples, ["last_hidden_state"])
    return path


def _vit() -> nn.Module:
    return transformers.ViTForImageClassification(
        _plain(transformers.ViTConfig(**_SMALL, **_SPREAD, image_size=_SIDE, patch_size=8, num_labels=10))
    )


def _yolos() -> nn.Module:
    return transformers.YolosForObjectDetection(
        _plain(transformers.YolosConfig(
            **_SMALL, **_SPREAD, image_size=[_SIDE, _SIDE], patch_size=8, num_detection_tokens=20, num_labels=5,
            use_mid_position_embeddings=False,
        ))
    )  # fmt: skip


def _detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    return transformers.DetrForObjectDetection(
        _plain(transformers.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
            d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=20, num_labels=5, init_std=0.1,
        ))
    )  # fmt: skip


def _segformer() -> nn.Module:
    return transformers.SegformerForSemanticSegmentation(
        _plain(transformers.SegformerConfig(
            hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 4],
            decoder_hidden_size=64, num_labels=6, **_SPREAD,
        ))
    )  # fmt: skip


def _clip() -> nn.Module:
    tower = _SMALL | {"num_hidden_layers": 3}
    text = {
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 16,
        "bos_token_id": 498,
        "eos_token_id": 499,
    }
    config = transformers.CLIPConfig(
        text_config=tower | text,
        vision_config=tower | {"image_size": _SIDE, "patch_size": 8},
        projection_dim=32,
    )
    return transformers.CLIPModel(_plain(config))


def _bert() -> nn.Module:
    return transformers.BertForSequenceClassification(
        _plain(transformers.BertConfig(**_SMALL, **_SPREAD, vocab_size=_VOCABULARY, num_labels=4))
    )


def _llama() -> nn.Module:
    return transformers.LlamaForCausalLM(
        _plain(transformers.LlamaConfig(
            **_SMALL, **_SPREAD, num_key_value_heads=2, vocab_size=_VOCABULARY, max_position_embeddings=32,
            use_cache=False,
        ))
    )  # fmt: skip


def _plain(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    config._attn_implementation = "eager"
    return config


_IMAGE, _TEXT = ("pixel_values",), ("input_ids", "attention_mask")
_CLASSES = Meaning(role="classes")
# Name, task, model, inputs, outputs.
_MODELS: tuple[tuple[str, str, Callable[[], nn.Module], tuple[str, ...], dict[str, Meaning]], ...] = (
    ("ViT", "classes", _vit, _IMAGE, {"logits": _CLASSES}),
    ("YOLOS", "boxes and classes", _yolos, _IMAGE, {"logits": _CLASSES, "pred_boxes": Meaning(role="values")}),
    ("DETR", "boxes and classes", _detr, _IMAGE, {"logits": _CLASSES, "pred_boxes": Meaning(role="values")}),
    ("Segformer", "classes of pixels", _segformer, _IMAGE, {"logits": Meaning(role="classes", axis=1)}),
    ("CLIP", "embeddings of images and texts", _clip, _IMAGE + _TEXT,
     {"image_embeds": Meaning(role="direction"), "text_embeds": Meaning(role="direction")}),
    ("BERT", "classes of texts", _bert, _TEXT, {"logits": _CLASSES}),
    ("Llama", "next tokens", _llama, _TEXT, {"logits": Meaning(role="classes", mask="attention_mask")}),
)  # fmt: skip


# Models that tell little by a sample, the others, get more of them.
_DENSE, _MORE = ("DETR", "Segformer"), 4


def small_transformers(work: Path, samples: int) -> Iterator[Subject]:
    """Each as an ONNX file, with its folder beside it."""
    for name, task, build, inputs, outputs in _MODELS:
        own = samples if name in _DENSE else _MORE * samples
        arrays = {key: array for key, array in _inputs((1 + JUDGED) * own).items() if key in inputs}
        folder, path = work / name.lower(), work / f"{name.lower()}.onnx"
        if not path.is_file():
            torch.manual_seed(0)
            model = build().eval()
            model.save_pretrained(folder)
            examples = {key: torch.from_numpy(arrays[key][:2]) for key in inputs}
            export(model, path, examples, list(outputs))
        calibration, validation = parts(arrays, own)
        yield Subject(
            name=f"{name} (random)", task=task, path=path, calibration=calibration, validation=validation,
            outputs=outputs, batch=8, twin=folder,
        )  # fmt: skip


def _inputs(count: int) -> Arrays:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 498, (count, _LENGTH))
    length = rng.integers(4, _LENGTH + 1, count)
    mask = (np.arange(_LENGTH) < length[:, None]).astype(np.int64)
    # The end of text, where CLIP reads its embedding.
    ids[np.arange(count), length - 1] = 499
    images = pictures.scaled(pictures.shapes(count, _SIDE), low=-1.0)
    return {"pixel_values": images, "input_ids": np.where(mask > 0, ids, 0), "attention_mask": mask}
