"""What is installed, whether it works, and what to install for what: each part does a small piece of real work."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq import adapters, solvers
from lampq.adapters.quiet_import import quiet_import
from lampq.core.values.messages import reason, root_cause
from lampq.core.values.problem import Problem
from lampq.demo_data import MODEL_PATH, TINY_PATH

WORKS, MISSING, BROKEN = "works", "not installed", "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that may be installed.

    Attributes:
        name: The extra of lampq that brings it, or the package's own name.
        purpose: What it is for.
        modules: What must be importable, and the distributions they come from.
        install: What brings it.
        work: A small piece of real work; fails where the part does not do it.
    """

    name: str
    purpose: str
    modules: dict[str, str]
    install: str
    work: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one part is.

    Attributes:
        name: Its name.
        purpose: What it is for.
        state: `works`, `not installed` or `broken`.
        versions: Its packages and their versions, as far as they are installed.
        remedy: What to run, or what is broken; empty where it works.
    """

    name: str
    purpose: str
    state: str
    versions: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return dataclasses.asdict(self)


def doctor() -> tuple[Finding, ...]:
    """Try every part."""
    return tuple(examine(part) for part in PARTS)


def examine(part: Part) -> Finding:
    """Import a part and let it work."""
    versions = ", ".join(
        f"{package} {version}" for package in part.modules.values() if (version := _version(package))
    )
    state, remedy = WORKS, ""
    missing = [package for package in part.modules.values() if not _version(package)]
    if missing:
        state, remedy = MISSING, f"pip install {part.install}"
    else:
        # Whatever a package stumbles over is what this is about.
        try:
            with quiet_import():
                for module in part.modules:
                    importlib.import_module(module)
                part.work()
        except Exception as err:
            state, remedy = BROKEN, f"{reason(root_cause(err))}; pip install --force-reinstall {part.install}"
    return Finding(name=part.name, purpose=part.purpose, state=state, versions=versions or "-", remedy=remedy)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _solve(solver: str) -> None:
    """Two layers, two options, one limit: the optimum is known."""
    cost, use = np.array([[3.0, 1.0], [2.0, 0.5]]), np.array([[1, 2], [1, 3]])
    problem = Problem.build(cost, use, np.array([4]))
    solution = solvers.solve(problem, solver=solver)
    if solution.choice is None or solution.choice.tolist() not in ([1, 0], [0, 1]):
        raise RuntimeError(f"{solver} does not solve a problem of two layers")


def _run(path: Any) -> None:
    model = adapters.read(path)
    shape = tuple(1 if side is None else side for side in model.input_specs[0].shape)
    outputs = model.run(np.zeros(shape, dtype=np.float32))
    if not all(np.isfinite(outputs[name]).all() for name in outputs.names):
        raise RuntimeError("it computes numbers that are not finite")


def _torch() -> None:
    import torch

    layer = torch.nn.Linear(4, 2)
    layer(torch.ones(1, 4)).sum().backward()
    if layer.weight.grad is None or not bool((layer.weight.grad == 1).all()):
        raise RuntimeError("a gradient is wrong")


def _picture() -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (1, 2, 3)).save(stream, format="PNG")
    if np.asarray(Image.open(stream))[0, 0].tolist() != [1, 2, 3]:
        raise RuntimeError("a picture does not survive being written")


def _tokens() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if tokenizer.encode("b a").ids != [1, 0]:
        raise RuntimeError("two words become the wrong tokens")


def _plot() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1])
    figure.savefig(io.BytesIO(), format="png")


def _transformers() -> None:
    import transformers

    transformers.BertConfig(num_hidden_layers=1)


def _masks() -> None:
    from pycocotools import mask

    if int(mask.area(mask.encode(np.ones((2, 3), dtype=np.uint8, order="F")))) != 6:
        raise RuntimeError("a mask has the wrong area")


def _parquet() -> None:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({"x": [1, 2]}), stream)
    if parquet.read_table(stream).column("x").to_pylist() != [1, 2]:
        raise RuntimeError("a table does not survive being written")


def _completion() -> None:
    import argparse

    import shtab

    shtab.complete(argparse.ArgumentParser(prog="x"), "bash")


PARTS: tuple[Part, ...] = (
    Part(
        name="lampq",
        purpose="plans and sweeps from profiles",
        modules={"numpy": "numpy", "rich": "rich"},
        install="lampq",
        work=lambda: _solve("exact"),
    ),
    Part(
        name="onnx",
        purpose="read, run and write ONNX models",
        modules={"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxruntime": "onnxruntime"},
        install="'lampq[onnx]'",
        work=lambda: _run(MODEL_PATH),
    ),
    Part(
        name="torch",
        purpose="PyTorch models; gradients of ONNX and TFLite models",
        modules={"torch": "torch", "safetensors.torch": "safetensors"},
        install="'lampq[torch]'",
        work=_torch,
    ),
    Part(
        name="transformers",
        purpose="Hugging Face folders",
        modules={"transformers": "transformers"},
        install="transformers",
        work=_transformers,
    ),
    Part(
        name="onnxscript",
        purpose="--to onnx: PyTorch models exported",
        modules={"onnxscript": "onnxscript"},
        install="onnxscript",
        work=lambda: None,
    ),
    Part(
        name="tflite",
        purpose="read, run and write TFLite models",
        modules={"ai_edge_litert.interpreter": "ai-edge-litert", "flatbuffers": "flatbuffers"},
        install="'lampq[tflite]'",
        work=lambda: _run(TINY_PATH),
    ),
    Part(
        name="images",
        purpose="folders of images as data",
        modules={"PIL.Image": "Pillow"},
        install="'lampq[images]'",
        work=_picture,
    ),
    Part(
        name="text",
        purpose="texts as data",
        modules={"tokenizers": "tokenizers"},
        install="'lampq[text]'",
        work=_tokens,
    ),
    Part(
        name="scipy",
        purpose="HiGHS: several limits at once",
        modules={"scipy.optimize": "scipy"},
        install="'lampq[scipy]'",
        work=lambda: _solve("scipy"),
    ),
    Part(
        name="cbc",
        purpose="CBC: another solver",
        modules={"mip": "mip"},
        install="'lampq[cbc]'",
        work=lambda: _solve("cbc"),
    ),
    Part(
        name="plot",
        purpose="pictures of curves",
        modules={"matplotlib.figure": "matplotlib"},
        install="'lampq[plot]'",
        work=_plot,
    ),
    Part(
        name="dask",
        purpose="--dask: work shared with a cluster",
        modules={"distributed": "distributed"},
        install="'lampq[dask]'",
        work=lambda: None,
    ),
    Part(
        name="detection",
        purpose="mAP of detectors",
        modules={"pycocotools.mask": "pycocotools"},
        install="'lampq[detection]'",
        work=_masks,
    ),
    Part(
        name="parquet",
        purpose="Parquet files as data",
        modules={"pyarrow.parquet": "pyarrow"},
        install="'lampq[parquet]'",
        work=_parquet,
    ),
    Part(
        name="complete",
        purpose="completion in the shell",
        modules={"shtab": "shtab"},
        install="'lampq[complete]'",
        work=_completion,
    ),
)
"""All that lampq can use."""
