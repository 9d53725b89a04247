"""How a model was read, so that another process can read it again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model

_NAME = "read_from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a model was read from and how; it can be sent to other processes.

    Attributes:
        source: A file, folder or factory.
        options: Of the reader.
        heads: How its outputs are judged.
    """

    source: str | Path
    options: Mapping[str, Any]
    heads: tuple[HeadChoice, ...] = ()

    @classmethod
    def of(cls, model: Model) -> Reading:
        """How to read a model again, judged as it is now.

        Raises:
            AdapterError: It was made in this process, not read.
        """
        reading = getattr(model, _NAME, None)
        if not isinstance(reading, cls):
            raise AdapterError(
                f"{model.path.name} was not read from a file, and other processes cannot read it again; read it with "
                f"lampq.read, or go without workers"
            )
        heads = (HeadChoice(name=head.name, role=head.role, weight=head.weight) for head in model.heads)
        return replace(reading, heads=tuple(heads))

    def remember(self, model: Model) -> None:
        """Note on a model that it was read so."""
        with contextlib.suppress(AttributeError, TypeError):
            setattr(model, _NAME, self)
