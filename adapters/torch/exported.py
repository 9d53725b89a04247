"""Programs of torch.export (.pt2), loaded from a copy that was checked (`program_archive`)."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.program_archive import copy_program
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exported:
    """A loaded program.

    Attributes:
        module: It as a module.
        input_shape: Shape of one sample, as exported.
        batch: Samples per run where the export fixes them, or None.
    """

    module: torch.nn.Module
    input_shape: tuple[int, ...]
    batch: int | None


def load(path: Path) -> Exported:
    """Load a .pt2 file.

    Raises:
        AdapterError: It is missing, damaged, would run code, or has not exactly one tensor as input.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    try:
        copy = copy_program(path)
    except AdapterError:
        raise
    # A damaged archive or JSON fails in as many ways as it has fields.
    except Exception as err:
        raise AdapterError(f"{path}: no readable exported program ({reason(err)})") from err
    try:
        with _silently():
            program = torch.export.load(copy)
            # Guards are Python text in the file: leave them out.
            signature = inspect.signature(program.module)
            module = program.module(
                **({"check_guards": False} if "check_guards" in signature.parameters else {})
            )
    except Exception as err:
        raise AdapterError(
            f"{path}: torch {torch.__version__} cannot load this program: {reason(err)}"
        ) from err
    first, *rest = _input_shape(path, program)
    batch = first if isinstance(first, int) else None
    return Exported(module=module, input_shape=tuple(_size(path, dim) for dim in rest), batch=batch)


def _size(path: Path, dim: Any) -> int:
    """A size, or where any will do the one that the program was exported with."""
    size = dim if isinstance(dim, int) else getattr(dim.node, "hint", None)
    if size is None:
        raise AdapterError(f"{path}: export it with fixed sizes of everything but the batch")
    return int(size)


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Without the tracebacks that torch logs before it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _input_shape(path: Path, program: Any) -> tuple[Any, ...]:
    users = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    values = [node.meta.get("val") for node in nodes]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].dim() < 1:
        raise AdapterError(
            f"{path}: takes {len(users)} inputs; export a program that takes one batch of samples"
        )
    return tuple(values[0].shape)
