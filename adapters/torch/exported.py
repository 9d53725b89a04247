"""Programs of torch.export (.pt2), loaded from a copy that was checked (`program_archive`)."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.program_archive import copy_program
from lampq.adapters.torch.signature import Signature
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exported:
    """A loaded program.

    Attributes:
        module: It as a module.
        signature: Its inputs, passed the way that they were exported.
        shapes: Shape of one sample of each, as exported.
        batch: Samples per run where the export fixes them, or None.
    """

    module: torch.nn.Module
    signature: Signature
    shapes: Mapping[str, tuple[int, ...]]
    batch: int | None


def load(path: Path) -> Exported:
    """Load a .pt2 file.

    Raises:
        AdapterError: It is missing, damaged, would run code, or takes other things than tensors.
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
    inputs = _inputs(path, program)
    batches = {shape[0] for shape in inputs.values() if isinstance(shape[0], int)}
    if len(batches) > 1:
        raise AdapterError(f"{path}: its inputs have {sorted(batches)} samples; export it with samples first")
    spec = program.call_spec.in_spec
    keywords = tuple((spec.child(1) if hasattr(spec, "child") else spec.children_specs[1]).context or ())
    return Exported(
        module=module,
        signature=Signature(names=tuple(inputs), required=tuple(inputs), keywords=frozenset(keywords)),
        shapes={name: tuple(_size(path, dim) for dim in shape[1:]) for name, shape in inputs.items()},
        batch=batches.pop() if batches else None,
    )


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


def _inputs(path: Path, program: Any) -> dict[str, tuple[Any, ...]]:
    """Shapes of the inputs by name, batch included; sizes that are free are no integers."""
    users = program.graph_signature.user_inputs
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    shapes = {}
    for name in map(str, users):
        value = nodes.get(name)
        if not isinstance(value, torch.Tensor) or value.dim() < 1:
            raise AdapterError(
                f"{path}: takes {name} beside batches of samples; export it with tensors alone"
            )
        shapes[name] = tuple(value.shape)
    if not shapes:
        raise AdapterError(f"{path}: takes no inputs; export a program that takes a batch of samples")
    return shapes
