"""All that allocation needs to know of a model: records, error table, measured damage. No model, no framework."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lampq.core import files, schema
from lampq.core.blocks import check_block
from lampq.core.bounded import open_regular
from lampq.core.coding import NEAREST, ROUNDINGS
from lampq.core.errors import RecordError
from lampq.core.layer import Layer
from lampq.core.npz import read_npz
from lampq.core.option import Option
from lampq.core.shard import Shard

_SCHEMA = "lampq.profile/1"
# Arrays that a profile may lack.
_OPTIONAL = ("kl", "logits", "logit_delta", "joint_fisher", "activation_range")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Measurements of one model. L layers, J options, S calibration samples, C classes.

    Attributes:
        layers: L records in the order the model uses them.
        options: J choices, the same for every layer, increasing in weight bits.
        weight_error: ||W_hat - W||^2 per layer and option, float64, shape (L, J).
        payload_bytes: Stored bytes (codes and scales) per layer and option, int64, shape (L, J); -1 where the
            format cannot store the layer that way, which rules the option out.
        rest_bytes: Bytes of the model that no plan changes.
        container: How codes are stored: `bitplane` (exactly b bits) or `int8`.
        block: Weights that share a scale (`core.blocks`), or None: one scale per output channel.
        rounding: `nearest`, or `inputs`: codes are chosen for the least error of the layers' outputs (`core.rounding`).
        kl: Measured damage of quantizing one layer alone, mean nats, shape (L, J), or None.
        logits: Float logits of the calibration samples, float32, shape (S, C), or None.
        logit_delta: Logit differences of quantizing one layer alone, float32, (L, J, S, C), or None.
        joint_fisher: Second-order damage of rounding weights and input of one layer together, E_n[(sum g dY)^2] / 2
            with dY = W_hat X_hat - W X, nats, shape (L, J), or None.
        activation_range: Ends of the grid that a layer's input is rounded on, float64, shape (L, J, 2), or None:
            the smallest and largest input in calibration.
        per_token: Inputs are rounded on a grid of each token's own, which needs no ranges.
        samples: Calibration samples behind the measurements, 0 without data.
        shard: Which part of the samples this is, or None: all.
        provenance: Model digest and name, versions, seed, calibration source.
    """

    layers: tuple[Layer, ...]
    options: tuple[Option, ...]
    weight_error: np.ndarray
    payload_bytes: np.ndarray
    rest_bytes: int
    container: str = "bitplane"
    block: int | None = None
    rounding: str = NEAREST
    kl: np.ndarray | None = None
    logits: np.ndarray | None = None
    logit_delta: np.ndarray | None = None
    joint_fisher: np.ndarray | None = None
    activation_range: np.ndarray | None = None
    per_token: bool = False
    samples: int = 0
    shard: Shard | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise RecordError("a profile needs at least one layer")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RecordError(f"profile: two layers are called {twice}")
        if not self.options or list(self.options) != sorted(set(self.options)):
            raise RecordError("profile: options must be distinct and increasing")
        check_block(self.block)
        if self.rounding not in ROUNDINGS:
            raise RecordError(f"rounding {self.rounding!r} is none of {', '.join(ROUNDINGS)}")
        if self.rest_bytes < 0 or self.samples < 0:
            raise RecordError("profile: rest_bytes and samples cannot be negative")
        table = (len(self.layers), len(self.options))
        self._check("weight_error", table, np.float64)
        self._check("payload_bytes", table, np.int64)
        if not self.available.any(axis=1).all():
            stuck = self.layers[int(np.argmin(self.available.any(axis=1)))].name
            raise RecordError(f"profile: none of the widths can be stored for layer {stuck}; profile others")
        for name in ("kl", "joint_fisher"):
            if getattr(self, name) is not None:
                self._check(name, table, np.float64)
        if self.activation_range is not None:
            self._check("activation_range", (*table, 2), np.float64)
            if (np.diff(self.activation_range) < 0).any():
                raise RecordError("profile: an activation_range ends before it begins")
        if self.logits is not None:
            self._check("logits", (self.samples, np.shape(self.logits)[-1]), np.float32)
        if self.logit_delta is not None:
            if self.logits is None:
                raise RecordError("profile: logit differences need the logits they differ from")
            self._check("logit_delta", (*table, *self.logits.shape), np.float32)

    def _check(self, name: str, shape: tuple[int, ...], dtype: type) -> None:
        array: np.ndarray = np.asarray(getattr(self, name), dtype=dtype)
        if array.shape != shape:
            raise RecordError(f"profile: {name} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            place = (
                self.layers[int(where[0])].name
                if len(shape) != 2 or name != "logits"
                else f"sample {where[0]}"
            )
            raise RecordError(f"profile: {name} is not finite at {place}")
        least = {"weight_error": 0, "kl": 0, "joint_fisher": 0, "payload_bytes": -1}.get(name)
        if least is not None and (array < least).any():
            place = self.layers[int(np.argwhere(array < least)[0, 0])].name
            raise RecordError(f"profile: {name} is negative at layer {place}")
        object.__setattr__(self, name, array)

    @property
    def available(self) -> np.ndarray:
        """Which options the format can store, bool, shape (L, J)."""
        return self.payload_bytes >= 0

    @property
    def sizes(self) -> np.ndarray:
        """Weights per layer, int64, shape (L,)."""
        return np.array([layer.size for layer in self.layers], dtype=np.int64)

    @property
    def weight_bits(self) -> np.ndarray:
        """Weight width of each option, int64, shape (J,)."""
        return np.array([option.weight_bits for option in self.options], dtype=np.int64)

    def option_text(self, index: int) -> str:
        """How people call an option: `4 bits` where all inputs have one width, else `w4a8`."""
        option = self.options[index]
        if len({other.input_bits for other in self.options}) == 1:
            return f"{option.weight_bits} bits"
        return option.to_text()

    def narrowed(self, columns: Sequence[int]) -> Profile:
        """The same with some of the options, by index, in rising order."""
        keep = list(columns)
        arrays: dict[str, Any] = {}
        for name in (
            "weight_error",
            "payload_bytes",
            "kl",
            "joint_fisher",
            "activation_range",
            "logit_delta",
        ):
            array = getattr(self, name)
            arrays[name] = None if array is None else array[:, keep]
        return dataclasses.replace(self, options=tuple(self.options[column] for column in keep), **arrays)

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write `path` (JSON) and, beside it with suffix .npz, the arrays.

        Raises:
            OutputExistsError: One of the two exists and `force` is false.
        """
        path = Path(path)
        arrays_path = path.with_suffix(".npz")
        for output in (path, arrays_path):
            files.refuse_existing(output, force=force)
        arrays: dict[str, Any] = {"weight_error": self.weight_error, "payload_bytes": self.payload_bytes}
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        with files.atomic_path(arrays_path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)
        data = {
            "schema": _SCHEMA,
            "provenance": dict(self.provenance),
            "samples": self.samples,
            "shard": None if self.shard is None else str(self.shard),
            "container": self.container,
            "block": self.block,
            "rounding": self.rounding,
            "rest_bytes": self.rest_bytes,
            "per_token": self.per_token,
            "options": [dataclasses.asdict(option) for option in self.options],
            "arrays": {"file": arrays_path.name, "sha256": files.sha256(arrays_path)},
            "layers": [layer.to_json() for layer in self.layers],
        }
        files.write_json(path, data)

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile and its arrays.

        Raises:
            RecordError: Either file is missing, damaged, or the two do not belong together.
        """
        path = Path(path)
        data = files.read_json(path, "profile")
        if data.get("schema") != _SCHEMA:
            raise RecordError(f"profile {path}: schema is {data.get('schema')!r}, expected {_SCHEMA!r}")
        try:
            schema.check(data, "profile")
            arrays_path = path.parent / Path(str(data["arrays"]["file"])).name
            arrays = _read_arrays(arrays_path, str(data["arrays"]["sha256"]))
            return cls(
                layers=tuple(Layer.from_json(layer) for layer in data["layers"]),
                options=tuple(Option(**option) for option in data["options"]),
                weight_error=arrays["weight_error"],
                payload_bytes=arrays["payload_bytes"],
                rest_bytes=int(data["rest_bytes"]),
                container=str(data["container"]),
                block=None if data.get("block") is None else int(data["block"]),
                rounding=str(data.get("rounding", NEAREST)),
                per_token=bool(data.get("per_token", False)),
                **{name: arrays.get(name) for name in _OPTIONAL},
                samples=int(data["samples"]),
                shard=None if data.get("shard") is None else Shard.parse(str(data["shard"])),
                provenance=dict(data["provenance"]),
            )
        except RecordError as err:
            raise RecordError(f"profile {path}: {err}") from err
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise RecordError(f"profile {path}: malformed ({type(err).__name__}: {err})") from err


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    try:
        with open_regular(path) as handle:
            if _sha256(handle) != digest:
                raise RecordError(
                    f"its arrays {path.name} have changed since it was written; profile the model again"
                )
            return read_npz(handle)[0]
    except OSError as err:
        raise RecordError(
            f"its arrays {path.name} cannot be read ({err.strerror}); keep the two files together"
        ) from err
    except RecordError:
        raise
    except ValueError as err:
        raise RecordError(f"its arrays {path.name} are damaged ({err})") from err


def _sha256(handle: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
