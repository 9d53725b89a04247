"""State dicts from files, without running anything that is in them."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lampq.core.values.errors import AdapterError, LampqError, MissingExtraError
from lampq.core.values.files import read_json
from lampq.core.values.messages import reason

State = dict[str, torch.Tensor]

_INDEX = ".index.json"
_IN_FOLDERS = (
    "model.safetensors",
    f"model.safetensors{_INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX}",
)
# Where training scripts keep the weights among other things, likeliest first.
_NESTS = (
    "state_dict", "model_state_dict", "model", "module", "model_state", "net", "network", "params", "weights",
    "model_ema", "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip


def load_state(path: Path) -> State:
    """The tensors of a checkpoint by name, on the CPU.

    Args:
        path: .safetensors, .pth, .pt, .bin or .ckpt, an index of shards (.index.json), or a folder of these.

    Raises:
        AdapterError: It is missing, damaged, holds no tensors, or would run code when unpickled.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if found is None:
            raise AdapterError(f"weights {path}: the folder holds none of {', '.join(_IN_FOLDERS)}")
        path = found
    if not path.is_file():
        raise AdapterError(f"weights {path}: no such file")
    if path.name.endswith(_INDEX):
        return _load_shards(path)
    return load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)


def load_safetensors(path: Path) -> State:
    """Tensors of a .safetensors file.

    Raises:
        AdapterError: It is damaged or no such file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as err:
        raise MissingExtraError("safetensors", "torch") from err
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as err:
        raise AdapterError(f"weights {path}: no valid safetensors file ({reason(err)})") from err


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files behind a checkpoint's path."""
    if path.is_dir():
        return tuple(sorted((*path.glob("*.safetensors"), *path.glob("*.bin"))))
    if path.name.endswith(_INDEX):
        return tuple(sorted(path.parent.glob(f"*{Path(path.name.removesuffix(_INDEX)).suffix}")))
    return (path,)


def _load_shards(path: Path) -> State:
    try:
        places = read_json(path, "index")["weight_map"]
        names = sorted(set(places.values()))
    except LampqError as err:
        raise AdapterError(str(err)) from err
    except (KeyError, TypeError, AttributeError) as err:
        raise AdapterError(f"index {path}: has no weight_map") from err
    state: State = {}
    for name in names:
        if Path(name).name != name or name.endswith(_INDEX):
            raise AdapterError(f"index {path}: the shard {name!r} lies outside the folder; refused")
        shard = path.parent / name
        if not shard.is_file():
            raise AdapterError(
                f"index {path}: the shard {name} is missing; put all {len(names)} beside the index"
            )
        state.update(load_state(shard))
    missing = sorted(set(places) - set(state))
    if missing:
        raise AdapterError(f"index {path}: {len(missing)} tensors are in no shard, first {missing[0]}")
    return state


def _load_pickle(path: Path) -> State:
    try:
        with torch.serialization.safe_globals(_harmless()), _quiet():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as err:
        raise AdapterError(f"weights {path}: {_refusal(path, err)}") from err
    except (
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
    ) as err:
        raise AdapterError(f"weights {path}: no readable PyTorch checkpoint ({reason(err)})") from err
    return _unnest(content, path)


def _unnest(content: Any, path: Path) -> State:
    """The state dict within a checkpoint that holds an optimizer, an epoch and so on as well."""
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
        nested = {str(k): v for k, v in content.items() if isinstance(v, Mapping) and _has_tensors(v)}
        for name in _NESTS:
            if name in nested and not tensors:
                return _unnest(nested[name], path)
        if tensors:
            return tensors
        if len(nested) == 1:
            return _unnest(next(iter(nested.values())), path)
        if nested:
            raise AdapterError(
                f"weights {path}: tensors are under each of {', '.join(sorted(nested))}; "
                f"save the one you mean alone"
            )
    raise AdapterError(f"weights {path}: holds no state dict but {_describe(content)}")


def _has_tensors(content: Mapping[Any, Any], depth: int = 3) -> bool:
    return any(
        isinstance(v, torch.Tensor) or (depth > 0 and isinstance(v, Mapping) and _has_tensors(v, depth - 1))
        for v in content.values()
    )


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {', '.join(map(str, list(content)[:6])) or 'nothing'}"
    return f"a {type(content).__name__}"


def _harmless() -> list[Any]:
    """Classes that training scripts leave in checkpoints and that only hold values."""
    dtypes = [type(np.dtype(code)) for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")]
    scalar = np.float64(0).__reduce__()[0]
    # NumPy 1 and 2 keep the same function at different addresses.
    old = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [argparse.Namespace, np.dtype, np.ndarray, scalar, *old, *dtypes]


def _refusal(path: Path, err: Exception) -> str:
    """Why an unpickler that runs no code gave up."""
    # Functions from outside torch say most about what was saved.
    unsafe = sorted(_globals(path) - _allowed_names(), key=lambda name: (name.startswith("torch."), name))
    if not unsafe:
        return f"no readable PyTorch checkpoint ({reason(err)})"
    more = f" and {len(unsafe) - 4} more" if len(unsafe) > 4 else ""
    return (
        f"loading it would run code ({', '.join(unsafe[:4])}{more}); save the weights alone with "
        f"torch.save(model.state_dict(), ...) or as safetensors"
    )


def _globals(path: Path) -> set[str]:
    """The functions and classes that a checkpoint would look up and call, apart from those torch holds safe."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    found: set[str] = set()
    texts: list[str] = []
    try:
        # The old format is a few pickles one after the other; the interesting one may be any of them.
        with path.open("rb") as file:
            while file.peek(1):  # type: ignore[attr-defined]
                for operation, value, _ in pickletools.genops(file):
                    if operation.name == "GLOBAL":
                        found.add(str(value).replace(" ", "."))
                    elif operation.name == "STACK_GLOBAL" and len(texts) >= 2:
                        found.add(".".join(texts[-2:]))
                    elif isinstance(value, str):
                        texts.append(value)
    except ValueError:
        # Raw tensors follow the pickles.
        pass
    return {
        name for name in found if not name.startswith(("torch._utils._rebuild", "collections.OrderedDict"))
    }


def _allowed_names() -> set[str]:
    return {"argparse.Namespace", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar"}  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        # Old checkpoints use storage classes that torch deprecates; that is no news to who reads one.
        warnings.simplefilter("ignore")
        yield
