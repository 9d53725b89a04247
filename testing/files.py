"""Laws of written files: they compute what the plan says, in the bytes that it says, or are not there."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lampq.core.measuring.measure import quantized_weights
from lampq.core.measuring.model import Model
from lampq.core.values.errors import LampqError
from lampq.core.values.plan import Plan
from lampq.testing.case import Case, require, require_equal, require_refused
from lampq.testing.plans import mixed_widths, plan_of_widths

_CONTAINERS = ("bitplane", "int8")


def a_file_computes_what_its_plan_says(case: Case) -> None:
    """In either container: the outputs of the model with rounded weights, in no more bytes than planned."""
    model = case.read()
    before = model.run(case.batch)
    for container in _CONTAINERS:
        widths = mixed_widths(model, container)
        if len(widths) < len(model.layers()):
            continue
        plan = plan_of_widths(model, widths, container)
        size = _require_written(case, model, plan, f"a file of {container}")
        require(
            size <= plan.total_bytes,
            f"a file of {container} has {size} bytes; planned are {plan.total_bytes}",
        )
    require_equal(model.run(case.batch), before, case.tolerance, "the model that has been written")


def rounded_inputs_take_no_more_than_planned(case: Case) -> None:
    """A file whose layers have inputs of 8 bits keeps its plan as well; a format may refuse to write one."""
    model = case.read()
    widths, ranges = _widths(model), _input_ranges(case, model)
    plan = plan_of_widths(model, widths, ranges=ranges)
    with _folder() as folder:
        path = folder / f"out{case.suffix}"
        with suppress(LampqError):
            model.write(plan, path, calibration=case.batch)
        size = _size(folder)
    require(size <= plan.total_bytes, f"the file has {size} bytes; planned are {plan.total_bytes}")


def a_variant_is_written_with_its_weights(case: Case) -> None:
    """What was replaced goes into the file, not what was read."""
    model = case.read()
    doubled = model.with_weights({layer.name: 2 * model.weight(layer.name) for layer in model.layers()})
    _require_written(case, doubled, plan_of_widths(doubled, _widths(doubled)), "the file of a variant")


def layers_without_a_decision_stay_float(case: Case) -> None:
    """A plan need not name all layers; the others are written as they are."""
    model = case.read()
    first, *others = _widths(model).items()
    _require_written(case, model, plan_of_widths(model, dict(others)), f"a file with {first[0]} left out")
    _require_written(case, model, plan_of_widths(model, dict([first])), f"a file of {first[0]} alone")


def a_failed_write_leaves_nothing(case: Case) -> None:
    """A plan for a layer that is not there is refused; nothing new lies in the folder, and what was there stays."""
    model = case.read()
    plan = plan_of_widths(model, _widths(model))
    stray = dataclasses.replace(plan.layers[0], name="no such layer")
    wrong = dataclasses.replace(plan, layers=(*plan.layers, stray))
    with _folder() as folder:
        path = folder / f"out{case.suffix}"
        require_refused(lambda: model.write(wrong, path), "a plan for an unknown layer", "no such layer")
        require(not list(folder.iterdir()), f"a failed write leaves {[p.name for p in folder.iterdir()]}")
        path.write_bytes(b"of somebody")
        require_refused(lambda: model.write(wrong, path), "a plan for an unknown layer", "no such layer")
        untouched = [p.name for p in folder.iterdir()] == [path.name] and path.read_bytes() == b"of somebody"
        require(untouched, "a failed write changes the file that was there")
        nowhere = folder / "no such folder" / path.name
        require_refused(lambda: model.write(plan, nowhere), "writing to a folder that does not exist")


def _require_written(case: Case, model: Model, plan: Plan, what: str) -> int:
    """Bytes of what was written."""
    with _folder() as folder:
        path = folder / f"out{case.suffix}"
        error = model.write(plan, path)
        require(
            error is None or 0 <= error <= case.written_tolerance, f"{what} is off by {error}, says write"
        )
        strangers = [p.name for p in folder.iterdir() if not p.name.startswith(path.name)]
        require(not strangers, f"{what} leaves {strangers} beside itself")
        size = _size(folder)
        if case.reopen is not None:
            outputs = case.reopen(path).run(case.batch)
            expected = model.with_weights(quantized_weights(model, plan.widths)).run(case.batch)
            require_equal(outputs, expected, case.written_tolerance, what)
    return size


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _input_ranges(case: Case, model: Model) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for name, values, _ in model.taps(case.batch):
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return ranges


def _widths(model: Model) -> dict[str, int]:
    return mixed_widths(model, "bitplane") or mixed_widths(model, "int8")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
