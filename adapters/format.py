"""What lampq knows of a model format: how to tell its files, how to read them, and what it can and cannot hold.

Records are made without the framework of their format, which is imported when a file of it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lampq.adapters.quiet_import import quiet_import
from lampq.core.measuring.model import Model
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, MissingExtraError, RecordError
from lampq.core.values.messages import reason, root_cause
from lampq.core.values.product import Product
from lampq.core.values.stored import StoredWeight

MODULES, NODES, OPERATORS = "modules", "nodes", "operators"
"""What other tools call the layers of a model by (`lampq.conversions`)."""


def _not_told(path: Path, head: bytes) -> bool:
    return False


def _no_code(source: str) -> bool:
    return False


def _no_advice(path: Path) -> str:
    return ""


def _nothing_stored(source: str | Path) -> Iterable[StoredWeight]:
    return ()


def _nothing_beside(path: Path) -> tuple[Path, ...]:
    return ()


def _no_layers(model: Model) -> Collection[str]:
    return ()


def _no_products(model: Model) -> tuple[Product, ...]:
    return ()


def _weights_of_its_own(model: Model) -> bool:
    return False


def _not_counted(model: Model) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFolder:
    """How some models of a format are written as folders.

    Attributes:
        marker: What such a folder has in it.
        fits: Whether a model is written as a folder under a path.
        packed: The model with the layers alone that a folder can hold quantized; itself where it can hold all.
        filed: The model with its bytes counted as those of a file.
        rehearse: Writes the folder on trial, before anything is measured.
    """

    marker: str
    fits: Callable[[Model, Path], bool]
    packed: Callable[[Model], Model]
    filed: Callable[[Model], Model]
    rehearse: Callable[[Model, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFormat:
    """A model format. A name, endings and `read` are enough for one whose models are files.

    Attributes:
        name: The `format` of its models.
        read: Reads a file or other source; options are the format's own.
        endings: Endings of the files it is read from, in small letters, `.onnx`.
        written: Endings of the files it is written to, the usual first; None: as it is read.
        title: What people call it; empty: its name.
        extra: Extra of lampq that it needs.
        packages: Modules of that extra and the packages they come from.
        detect: Whether a file with another ending, by its first bytes, or a folder is of this format.
        is_code: Whether a source that is no file names code that makes a model, which may be given weights.
        takes_shapes: Whether a source may be given the shapes of its inputs, with the option `input_shape`.
        fixed: Names of a model's inputs that the option `constants` fixed when it was read; None: none can be.
        takes_device: Whether it runs elsewhere than on the CPU, with the option `device`.
        takes_autocast: Whether matrix products may be in a lower precision, with the option `autocast`.
        advice: What keeps a file from being read by this format though it looks like one of it, for `PATH ADVICE`.
        stored: The quantized weights that a source holds, whichever tool quantized it.
        beside: Further files that belong to one.
        weight_bytes: Bytes that the file of a model holds the weights of its layers in; 0 where that cannot be told,
            None where they are floats of one size.
        reread: Reads what was written from a model, to run as that does; None: as any other file.
        exports: Format -> writes a model in that format.
        products: Products of two activations in a model, where `simulate` can round their factors.
        rounding: A model as one that rounds activations, where those of the format do so in files alone; both agree on
            the inputs that are given.
        simulate: Writes a model in float, with sites rounded by their rules, checked with inputs or made-up ones; gives
            the share of values that it rounds differently (`adapters.onnx.simulate`). None where nothing does.
        folder: How models are written as folders, or None: they are files.
        addresses: What other tools call its layers by: `modules`, `nodes`, `operators`, or empty.
        input_bits: Widths that its files hold layers' inputs in.
        blocks_with_inputs: Whether weights that share a scale by blocks go with rounded inputs.
        low_rank: Layers of a model, by name, beside whose codes its files hold factors of low rank.
        folds_norms: Whether converters to it fold normalizations into the weights behind, which changes them.
        random_weights: Whether a model was made by code without weights to fill it.
    """

    name: str
    read: Callable[..., Model]
    endings: tuple[str, ...] = ()
    written: tuple[str, ...] | None = None
    title: str = ""
    extra: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    detect: Callable[[Path, bytes], bool] = _not_told
    is_code: Callable[[str], bool] = _no_code
    takes_shapes: Callable[[str], bool] = _no_code
    fixed: Callable[[Model], Iterable[str]] | None = None
    takes_device: bool = False
    takes_autocast: bool = False
    advice: Callable[[Path], str] = _no_advice
    stored: Callable[[str | Path], Iterable[StoredWeight]] = _nothing_stored
    beside: Callable[[Path], tuple[Path, ...]] = _nothing_beside
    weight_bytes: Callable[[Model], int | None] = _not_counted
    reread: Callable[[Model, Path], Model] | None = None
    exports: Mapping[str, Callable[[Model, Path], None]] = field(default_factory=dict)
    products: Callable[[Model], tuple[Product, ...]] = _no_products
    rounding: Callable[[Model, BatchLike], Model] | None = None
    simulate: Callable[[Model, Mapping[str, ActivationRule], Path, BatchLike | None], float] | None = None
    folder: ModelFolder | None = None
    addresses: str = ""
    input_bits: tuple[int, ...] = (8,)
    blocks_with_inputs: bool = True
    low_rank: Callable[[Model], Collection[str]] = _no_layers
    folds_norms: bool = False
    random_weights: Callable[[Model], bool] = _weights_of_its_own

    def __post_init__(self) -> None:
        if not self.name:
            raise RecordError("a model format needs a name")
        for ending in (*self.endings, *(self.written or ())):
            if not ending.startswith(".") or ending != ending.lower() or len(ending) < 2:
                raise RecordError(f"model format {self.name}: ending {ending!r}; write it as .onnx")
        if self.addresses not in ("", MODULES, NODES, OPERATORS):
            raise RecordError(f"model format {self.name}: no tool calls layers by {self.addresses!r}")

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or self.name

    @property
    def output_endings(self) -> tuple[str, ...]:
        """Endings of the files it is written to, the usual first."""
        return self.endings if self.written is None else self.written

    def has_ending(self, path: Path) -> bool:
        """Whether a path ends as files of this format do."""
        return ends(path, self.endings)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Turns a missing or broken package of the extra into the error that names it, as long as the block lasts.

        What packages print when they are imported is left out.

        Raises:
            MissingExtraError: It is not installed.
            AdapterError: It is, but cannot be imported; says why.
        """
        try:
            with quiet_import():
                yield
        except ImportError as err:
            name = (err.name or "").partition(".")[0]
            if name in self.packages and isinstance(err, ModuleNotFoundError):
                raise MissingExtraError(self.packages[name], self.extra) from err
            if name == "lampq" or isinstance(err, ModuleNotFoundError):
                raise
            raise AdapterError(
                f"{self.label} models cannot be read here: {reason(root_cause(err))}; "
                f"install its packages again: pip install --force-reinstall 'lampq[{self.extra}]'"
            ) from err


def ends(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a path has one of these endings, in letters of any size, behind a name."""
    name = path.name.lower()
    return any(name.endswith(ending) and name != ending for ending in endings)
