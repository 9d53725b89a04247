"""Flags of where a model runs, and how exactly."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from lampq import adapters
from lampq.core.values.errors import AdapterError

_CPU = "cpu"


def add_arguments(sub: ArgumentParser) -> None:
    """Where a model runs while it is measured."""
    sub.add_argument(
        "--device",
        metavar="NAME",
        help="where it runs: cpu, cuda, cuda:1, mps (PyTorch), or a provider of ONNX Runtime, such as openvino "
        "(default: cpu; PyTorch takes a GPU where there is one)",
    )
    sub.add_argument(
        "--autocast",
        metavar="TYPE",
        help="compute matrix products of a PyTorch model in bfloat16 or float16 (default: as the model is)",
    )


def of_reference(args: Namespace, model: str) -> dict[str, Any]:
    """The same for a model beside the one that is asked about: as far as its format knows devices and precisions."""
    form, asked = adapters.format_of(model), _asked(args)
    takes = {"device": form.takes_device, "autocast": form.takes_autocast}
    return {name: value for name, value in asked.items() if takes[name]}


def options(args: Namespace, model: str) -> dict[str, Any]:
    """Arguments of the reader of a model.

    Raises:
        AdapterError: The model's format knows no devices, or no lower precision.
    """
    asked = _asked(args)
    if not asked or model.endswith(".json"):
        return {}
    form = adapters.format_of(model)
    if "device" in asked and not form.takes_device:
        if asked["device"] != _CPU:
            raise AdapterError(
                f"--device {asked['device']}: {form.label} models run on the cpu alone; leave it out"
            )
        del asked["device"]
    if "autocast" in asked and not form.takes_autocast:
        raise AdapterError(f"--autocast goes with a PyTorch model; {model} computes as the file says")
    return asked


def _asked(args: Namespace) -> dict[str, Any]:
    return {name: value for name in ("device", "autocast") if (value := vars(args).get(name)) is not None}
