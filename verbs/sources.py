"""Files by what they hold: a model, a profile or a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from lampq import adapters
from lampq.core.measuring.model import Model
from lampq.core.values.errors import RecordError
from lampq.core.values.files import read_json
from lampq.core.values.layer import Layer
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.profile import Profile
from lampq.core.values.selection import KeptLayer

Source: TypeAlias = Model | Profile | Plan


def read_source(path: str | Path, **read_options: Any) -> Source:
    """Read a file, whichever of the three it is.

    Args:
        path: What `lampq.read` takes, or a profile or plan in JSON.
        read_options: For a model; see `lampq.read`.

    Raises:
        LampqError: It cannot be read.
    """
    if str(path).endswith(".json"):
        schema = str(read_json(Path(path), "plan or profile").get("schema", ""))
        if schema.startswith("lampq.profile/"):
            return Profile.read(Path(path))
        if schema.startswith("lampq.plan/"):
            return Plan.read(Path(path))
        raise RecordError(
            f"{path} is neither a profile nor a plan; `lampq convert` reads foreign configurations"
        )
    return adapters.read(path, **read_options)


def layers_of(source: Source) -> tuple[Layer | PlanLayer | KeptLayer, ...]:
    """The layers of any of the three, in model order; behind them those that a profile or plan keeps float."""
    return (*source.layers, *source.kept) if isinstance(source, Profile | Plan) else source.layers()
