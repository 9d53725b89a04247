"""Programs of torch.export (.pt2), checked before they are loaded.

Such a file is an archive of JSON, raw tensors and, sometimes, pickles and compiled code. Torch unpickles,
compiles and evaluates what it finds. So the archive is inspected first: nothing pickled but sample inputs
(which torch loads with weights_only), no compiled code, no function but operators, no name or formula that
is more than that.
"""

from __future__ import annotations

import inspect
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims?|quantized_decomposed|higher_order)\.\w+(?:\.\w+)?"
    r"|_operator\.(?:getitem|add|sub|mul|neg|pos|pow|floordiv|truediv|mod|eq|ne|lt|le|gt|ge|and_|or_|not_|index)"
    r"|math\.(?:ceil|floor|trunc|sqrt|log2)"
    r"|torch\.(?:sym_int|sym_float|sym_max|sym_min|sym_not|sym_ite|sym_sum|_sym_sqrt)"
)
_NAME = re.compile(r"[\w.\-]*")
_FORMULA = re.compile(r"[\w\s(),.+\-*/%<>=&|~'!]*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset(
    """
    Symbol Integer Float Rational Mul Add Pow Mod Max Min Abs Eq Ne Equality Unequality Le Lt Ge Gt And Or Not
    LessThan GreaterThan StrictLessThan StrictGreaterThan FloorDiv CeilDiv CleanDiv ModularIndexing PythonMod
    IntTrueDiv FloatTrueDiv FloorToInt CeilToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat
    PowByNatural FloatPow LShift RShift Where Piecewise ExprCondPair IsNonOverlappingAndDenseIndicator
    BooleanTrue BooleanFalse true false True False positive nonnegative negative integer real zero finite
    floor ceiling int_oo oo
    """.split()  # noqa: SIM905
)
_NAMED_FIELDS = frozenset({"name", "as_name", "fqn", "parameter_name", "buffer_name", "tensor_constant_name"})


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
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as err:
        raise AdapterError(f"{path}: no readable exported program ({err})") from err
    try:
        program = torch.export.load(path)
        # Guards are Python text in the file: leave them out.
        options = (
            {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
        )
        module = program.module(**options)
    except Exception as err:
        raise AdapterError(
            f"{path}: torch {torch.__version__} cannot load this program: {reason(err)}"
        ) from err
    shape = _input_shape(path, program)
    batch = shape[0] if isinstance(shape[0], int) else None
    if not all(isinstance(dim, int) for dim in shape[1:]):
        example = program.example_inputs[0][0] if program.example_inputs else None
        if example is None:
            raise AdapterError(f"{path}: export it with fixed sizes of everything but the batch")
        shape = (shape[0], *example.shape[1:])
    return Exported(module=module, input_shape=tuple(int(d) for d in shape[1:]), batch=batch)


def _input_shape(path: Path, program: Any) -> tuple[Any, ...]:
    users = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    values = [node.meta.get("val") for node in nodes]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].dim() < 1:
        raise AdapterError(
            f"{path}: takes {len(users)} inputs; export a program that takes one batch of samples"
        )
    return tuple(values[0].shape)


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise AdapterError(
            f"{path}: holds compiled code; refused. Save the program that torch.export gave instead"
        )
    models = [
        name for name, short in zip(names, inner, strict=True) if re.fullmatch(r"models/[^/]+\.json", short)
    ]
    if len(models) != 1:
        raise AdapterError(
            f"{path}: holds {len(models)} programs of the present format; "
            f"export it again with a recent torch.export.save"
        )
    for name in names:
        if name.endswith("_config.json"):
            for entry, record in json.loads(archive.read(name)).get("config", {}).items():
                if record.get("use_pickle") or "_obj_" in str(record.get("path_name", "")):
                    raise AdapterError(f"{path}: {entry} is pickled, and loading it could run code; refused")
    for field, text in _strings(json.loads(archive.read(models[0]))):
        _check_text(path, field, text)


def _check_text(path: Path, field: str, text: str) -> None:
    if field == "target" and not _OPERATOR.fullmatch(text):
        raise AdapterError(f"{path}: calls {text[:80]!r}, which is no operator of torch; refused")
    if field in _NAMED_FIELDS and not _NAME.fullmatch(text):
        raise AdapterError(f"{path}: {text[:80]!r} is no name; refused")
    if field == "expr_str":
        words = _WORD.findall(text)
        strange = [word for word in words if word not in _WORDS and not re.fullmatch(r"[suz]+\d+", word)]
        if strange or not _FORMULA.fullmatch(text) or re.search(r"[A-Za-z_)]\s*\.", text):
            raise AdapterError(f"{path}: {text[:80]!r} is no formula of sizes; refused")


def _strings(node: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON document with the name of its field; texts that are only remarks are left out."""
    if isinstance(node, str):
        yield field, node
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "metadata":
                yield from _strings(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, field)
