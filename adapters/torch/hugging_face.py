"""Models in Hugging Face directories: config.json and weights, offline, no code of theirs."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.quiet_import import quiet_import
from lampq.adapters.torch.hugging_face_checks import check_config, check_model, read_config, weight_files
from lampq.adapters.torch.hugging_face_plain import plain
from lampq.adapters.torch.inputs import find_example
from lampq.adapters.torch.signature import Signature
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason, root_cause

_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """A loaded model.

    Attributes:
        module: The module.
        files: The files of its weights.
        stored: Layer -> (weight bits, None) of weights that were stored quantized.
        dtype: Type that its weights are stored in, where they are computed with in a wider one, or None.
    """

    module: torch.nn.Module
    files: tuple[Path, ...]
    stored: Mapping[str, tuple[int, int | None]]
    dtype: torch.dtype | None = None


def load(path: Path, *, requantize: bool = False) -> Loaded:
    """Load the class that config.json names, from transformers itself.

    Args:
        path: The directory.
        requantize: Whether weights that are stored quantized count, as the floats that they stand for.

    Raises:
        AdapterError: The directory is no model, needs code of its own, or its weights do not fit.
    """
    config = read_config(path)
    transformers = import_transformers()
    name = next(iter(config.get("architectures") or ()), None)
    cls = _architecture(transformers, str(name), str(path))
    if cls is None:
        raise AdapterError(
            f"{path}: config.json asks for {name or 'no architecture'}, which transformers "
            f"{transformers.__version__} does not have; name one of its classes there"
        )
    with quietly(transformers):
        try:
            _check_sizes(path, cls)
            module, report = cls.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
            if config.get("quantization_config"):
                # Packed weights become ordinary ones on the first run. (Asking for that on loading,
                # dequantize=True, gives wrong values where widths are mixed, as of transformers 5.23.)
                _run_once(module)
                module = plain(path, module) if requantize else module
        except AdapterError:
            raise
        # The library raises whatever a damaged directory makes it stumble over.
        except Exception as err:
            raise AdapterError(f"{path}: transformers cannot load it: {reason(err)}") from err
    _check(path, report)
    return Loaded(
        module=module,
        files=weight_files(path),
        stored={} if requantize else _stored_bits(module, config.get("quantization_config") or {}),
        dtype=_HALF.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")),
    )


def build(architecture: str, config: dict[str, Any]) -> torch.nn.Module:
    """A model with random weights from a configuration.

    Raises:
        AdapterError: transformers is missing or does not know it.
    """
    check_config(Path(architecture), config)
    transformers = import_transformers()
    cls = _architecture(transformers, architecture, "transformers")
    kind = str(config.get("model_type"))
    if cls is None or kind not in transformers.CONFIG_MAPPING:
        raise AdapterError(f"transformers {transformers.__version__} has no {architecture} of type {kind}")
    family = transformers.CONFIG_MAPPING[kind]
    with quietly(transformers):
        module: torch.nn.Module = cls(family.from_dict(config))
    return module


def import_transformers() -> Any:
    """The library.

    Raises:
        AdapterError: It is not installed, or cannot be imported.
    """
    try:
        with quiet_import():
            import transformers
    except ModuleNotFoundError as err:
        raise AdapterError(
            "Hugging Face directories need transformers; run: pip install transformers"
        ) from err
    except (ImportError, RuntimeError) as err:
        raise AdapterError(f"transformers cannot be imported: {reason(root_cause(err))}") from err
    return transformers


def is_directory(path: Path) -> bool:
    """Whether a path is a Hugging Face directory."""
    return path.is_dir() and (path / "config.json").is_file()


@contextlib.contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """No progress bars and remarks of the library; what matters is reported in its stead."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # Companion libraries draw bars of their own.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _architecture(transformers: Any, name: str, where: str) -> Any:
    """The class of a model, or None where the library has none of this name.

    Raises:
        AdapterError: It has one, which cannot be imported here.
    """
    try:
        with quiet_import():
            cls = getattr(transformers, name, None)
    except (ImportError, RuntimeError) as err:
        raise AdapterError(
            f"{where}: transformers {transformers.__version__} cannot import {name}: {reason(root_cause(err))}"
        ) from err
    return cls if inspect.isclass(cls) and issubclass(cls, transformers.PreTrainedModel) else None


def _check_sizes(path: Path, cls: Any) -> None:
    with torch.device("meta"):
        check_model(path, cls(cls.config_class.from_pretrained(path, local_files_only=True)))


def _run_once(module: Any) -> None:
    signature = Signature.of(module)

    def run(inputs: Mapping[str, torch.Tensor]) -> None:
        args, kwargs = signature.arguments(inputs)
        module(*args, **kwargs)

    find_example(module, signature, run, {})


def _check(path: Path, report: Any) -> None:
    """Every weight of the model must come from the files; what they hold beyond that does no harm."""
    missing, misshapen = sorted(report["missing_keys"]), sorted(map(str, report["mismatched_keys"]))
    if missing or misshapen:
        parts = [f"{len(missing)} missing ({', '.join(missing)})"] if missing else []
        parts += [f"{len(misshapen)} of another shape ({', '.join(misshapen)})"] if misshapen else []
        raise AdapterError(
            f"{path}: the weights do not fit config.json: {'; '.join(parts)}; "
            f"name the architecture they were saved with"
        )


def _stored_bits(
    module: torch.nn.Module, quantization: Mapping[str, Any]
) -> dict[str, tuple[int, int | None]]:
    """Widths by module, from groups of a compressed-tensors configuration that name modules by pattern."""
    widths: dict[str, tuple[int, int | None]] = {}
    for group in (quantization.get("config_groups") or {}).values():
        bits = (group.get("weights") or {}).get("num_bits")
        patterns = [target[3:] for target in group.get("targets", ()) if target.startswith("re:")]
        if bits is None:
            continue
        for name, _ in module.named_modules():
            if any(re.match(pattern, name) for pattern in patterns):
                widths[name] = (int(bits), None)
    return widths
