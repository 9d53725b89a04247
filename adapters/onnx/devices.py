"""Devices by name, as execution providers of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import onnxruntime as ort

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

Provider: TypeAlias = str | tuple[str, dict[str, str]]
"""A provider, with its options where it has some."""

CPU = "CPUExecutionProvider"
# Devices whose names say less than those of their providers.
_NAMES = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
_SUFFIX = "ExecutionProvider"


def providers_of(device: str) -> tuple[Provider, ...]:
    """The providers that run a model on a device, best first.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, another name or that of a provider.

    Raises:
        AdapterError: ONNX Runtime has no such provider here; lists those that it has.

    >>> providers_of("cpu")
    ('CPUExecutionProvider',)
    """
    name, colon, number = device.partition(":")
    available = ort.get_available_providers()
    known = {one.removesuffix(_SUFFIX).lower(): one for one in (*_NAMES.values(), *ort.get_all_providers())}
    provider = _NAMES.get(name.lower(), known.get(name.removesuffix(_SUFFIX).lower(), ""))
    if provider not in available or (colon and not number.isdecimal()):
        raise AdapterError(
            f"device {device!r}: ONNX Runtime has {listed(_devices(available))} here{_advice(provider)}"
        )
    if provider == CPU:
        return (CPU,)
    return ((provider, {"device_id": number}) if colon else provider, CPU)


def missing(wanted: Sequence[Provider], opened: Sequence[str]) -> str:
    """The first provider that a session was to have and has not, as when its libraries cannot be loaded; or empty."""
    names = (provider if isinstance(provider, str) else provider[0] for provider in wanted)
    return next((name for name in names if name not in opened), "")


def _devices(available: Sequence[str]) -> list[str]:
    short = {provider: name for name, provider in _NAMES.items()}
    return sorted(short.get(provider, provider.removesuffix(_SUFFIX).lower()) for provider in available)


def _advice(provider: str) -> str:
    if not provider:
        return ""
    return f"; {provider} is in another build of it (for NVIDIA GPUs: pip install onnxruntime-gpu)"
