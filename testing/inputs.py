"""Laws of inputs: what fits is named, what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch
from lampq.core.values.input_spec import FLOATING
from lampq.testing.case import Case, require, require_equal, require_refused


def inputs_are_as_described(case: Case) -> None:
    """The batch fits `input_specs`, by name and shape; a lone array goes to an only input, whatever its name."""
    model = case.read()
    inputs = case.inputs(model)
    specs = {spec.name: spec for spec in model.input_specs}
    require(
        set(inputs.names) == set(specs), f"input_specs are of {sorted(specs)}, the batch of {inputs.names}"
    )
    for group in inputs.groups:
        for name, array in group.items():
            require(
                specs[name].accepts(array.shape), f"{specs[name]} does not accept the batch's {array.shape}"
            )
    if len(specs) == 1:
        (name,) = specs
        renamed = Batch([{"another name": group[name]} for group in inputs.groups])
        require_equal(model.run(renamed), model.run(inputs), case.tolerance, "a lone array of another name")
    if len(inputs.groups) == 1:
        shuffled = Batch.of(dict(reversed(list(inputs.groups[0].items()))))
        require_equal(model.run(shuffled), model.run(inputs), case.tolerance, "inputs in another order")


def inputs_that_do_not_fit_are_refused(case: Case) -> None:
    """Another shape or type, a missing input, one too many: in one line that names it, wherever inputs go."""
    model = case.read()
    group = dict(case.inputs(model).groups[0])
    uses: Mapping[str, Callable[[Batch], object]] = {
        "a run": model.run,
        "a sweep": lambda batch: list(model.sweep(batch, _one(model))),
        "taps": lambda batch: list(model.taps(batch)),
    }
    for what, use in uses.items():
        for wrong, batch, mentioned in _wrong(model, group):
            require_refused(partial(use, Batch.of(batch)), f"{what} with {wrong}", mentioned)


def _wrong(model: Model, group: dict[str, np.ndarray]) -> list[tuple[str, dict[str, np.ndarray], str]]:
    """Batches that no model of these inputs takes: what is wrong, the arrays, and what the message names."""
    cases = []
    for spec in model.input_specs:
        array = group[spec.name]
        bad = np.full(array.shape, 0.5) if spec.dtype not in FLOATING else array.astype("U8")
        cases += [
            (f"{bad.dtype} for {spec}", {**group, spec.name: bad}, spec.name),
            (f"shape {(*array.shape, 1)} for {spec}", {**group, spec.name: array[..., None]}, spec.name),
        ]
    cases.append(
        ("an unknown input", {**group, "no such input": next(iter(group.values()))}, "no such input")
    )
    if len(group) > 1:
        missing, *rest = group
        cases.append((f"{missing} missing", {name: group[name] for name in rest}, missing))
    return cases


def _one(model: Model) -> list[tuple[str, int, np.ndarray]]:
    name = model.layers()[0].name
    return [(name, 0, model.weight(name))]
