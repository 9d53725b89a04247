"""Files of profiles: JSON, and beside it the arrays in a file named by its content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from lampq.core.values import files, schema, staging
from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.head import Head
from lampq.core.values.layer import Layer
from lampq.core.values.messages import described, printable
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.npz import read_npz
from lampq.core.values.option import Option
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.product import Product
from lampq.core.values.publishing import writing
from lampq.core.values.rounding_kinds import NEAREST
from lampq.core.values.selection import KeptLayer
from lampq.core.values.shard import Shard
from lampq.core.values.side_files import SideNames, publish_pair
from lampq.core.values.tables import KINDS, Table, TableKind, known_tables

if TYPE_CHECKING:
    from lampq.core.values.profile import Profile

Made = TypeVar("Made")

_SCHEMAS = ("lampq.profile/2", "lampq.profile/1")
# How often a profile that changes while it is read is read again.
_TRIES = 20
# How a version tells its arrays: version 1 had the tables of these names alone, and did not describe them.
_FIRST = ("kl", "logits", "logit_delta", "joint_fisher", "activation_range")


def write(profile: Profile, path: Path, *, force: bool) -> None:
    """See `Profile.write`."""
    refuse_clashes([Output.profile(path)], force=force)
    arrays: dict[str, Any] = {name: table.array for name, table in profile.tables.items()}
    names = SideNames(stem=path.stem, ending=".npz")
    with (
        writing(path),
        staging.temporary(path.parent, suffix=".npz") as arrays_file,
        staging.temporary(path.parent, suffix=".json") as file,
    ):
        with arrays_file.open("wb") as handle:
            np.savez(handle, **arrays)
        digest = files.sha256(arrays_file)
        file.write_text(files.json_text(_to_json(profile, {"file": names.of(digest), "sha256": digest})))
        publish_pair(file, path, (arrays_file, digest), names, former=_former_arrays(path))


def _to_json(profile: Profile, arrays: Mapping[str, str]) -> dict[str, Any]:
    rewrites = {"rewrites": [rewrite.to_json() for rewrite in profile.rewrites]} if profile.rewrites else {}
    return {
        "schema": _SCHEMAS[0],
        "provenance": dict(profile.provenance),
        "samples": profile.samples,
        "shard": None if profile.shard is None else str(profile.shard),
        "container": profile.container,
        "block": profile.block,
        "rounding": profile.rounding,
        "rest_bytes": profile.rest_bytes,
        "per_token": profile.per_token,
        "heads": [head.to_json() for head in profile.heads],
        "kept": [layer.to_json() for layer in profile.kept],
        "options": [option.to_json() for option in profile.options],
        "tables": {name: table.kind.to_json() for name, table in profile.tables.items()},
        "arrays": dict(arrays),
        "layers": [layer.to_json() for layer in profile.layers],
        "products": [product.to_json() for product in profile.products],
        "quantizers": {
            site: [fitted.to_json() for fitted in some] for site, some in profile.quantizers.items()
        },
        **rewrites,
    }


def read(path: Path, make: Callable[..., Made]) -> Made:
    """What `make` makes of the fields of a profile in a file; see `Profile.read`."""
    data = files.read_json(path, "profile", bounded=True)
    failed: object = None
    for _ in range(_TRIES):
        try:
            return _from_json(data, path, make)
        except RecordError:
            # Another run may have replaced the profile since, and removed these arrays; or put both back by now.
            newer = files.read_json(path, "profile", bounded=True)
            if newer == data == failed:
                raise
            failed, data = data, newer
    raise RecordError(f"profile {path}: it is being replaced all the time; try again")


def _from_json(data: Mapping[str, Any], path: Path, make: Callable[..., Made]) -> Made:
    try:
        schema.check_version(data.get("schema"), *_SCHEMAS)
        schema.check(data, "profile")
        arrays_path = path.parent / Path(str(data["arrays"]["file"])).name
        arrays = _read_arrays(arrays_path, str(data["arrays"]["sha256"]))
        return make(
            layers=tuple(Layer.from_json(layer) for layer in data["layers"]),
            options=tuple(Option(**option) for option in data["options"]),
            rest_bytes=int(data["rest_bytes"]),
            tables=_tables(data, arrays),
            container=str(data["container"]),
            block=None if data.get("block") is None else int(data["block"]),
            rounding=str(data.get("rounding", NEAREST)),
            per_token=bool(data.get("per_token", False)),
            products=tuple(Product.from_json(product) for product in data.get("products", ())),
            quantizers={
                str(site): tuple(Fitted.from_json(fitted) for fitted in some)
                for site, some in data.get("quantizers", {}).items()
            },
            rewrites=tuple(NormRewrite.from_json(rewrite) for rewrite in data.get("rewrites", ())),
            heads=tuple(Head.from_json(head) for head in data.get("heads", ())),
            kept=tuple(KeptLayer.from_json(layer) for layer in data.get("kept", ())),
            samples=int(data["samples"]),
            shard=None if data.get("shard") is None else Shard.parse(str(data["shard"])),
            provenance=dict(data["provenance"]),
        )
    except RecordError as err:
        raise RecordError(f"profile {path}: {err}") from err
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise RecordError(f"profile {path}: malformed ({described(err)})") from err


def _former_arrays(path: Path) -> dict[str, str]:
    """NAME.npz -> its SHA-256, where the profile at `path` is of the time when arrays had that name."""
    try:
        arrays = files.read_json(path, "profile")["arrays"]
        name, digest = str(arrays["file"]), str(arrays["sha256"])
    except (RecordError, KeyError, TypeError):
        return {}
    own = name == f"{path.stem}.npz" and re.fullmatch("[0-9a-f]{64}", digest)
    return {name: digest} if own else {}


def _tables(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Table]:
    """The tables of a profile file."""
    if "tables" not in data:
        named = ("weight_error", "payload_bytes", *_FIRST)
        return known_tables(**{name: arrays[name] for name in named if name in arrays})
    lacking = next((name for name in data["tables"] if name not in arrays), None)
    if lacking is not None:
        raise RecordError(f"its arrays lack {printable(lacking)}; profile the model again")
    return {
        name: Table(array=arrays[name], kind=KINDS.get(name) or TableKind.from_json(kind))
        for name, kind in data["tables"].items()
    }


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
