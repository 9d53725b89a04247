"""Laws of weights: what is stored, and what takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch
from lampq.testing.case import Case, require, require_equal, require_refused

_UNKNOWN = "no layer is called so"


def a_weight_is_a_copy(case: Case) -> None:
    """`weight` gives float32 in the shape of the record, and changing it changes no model."""
    model = case.read()
    before = model.run(case.batch)
    for layer in model.layers():
        stored = model.weight(layer.name)
        require(stored.dtype == np.float32, f"the weight of {layer.name} is {stored.dtype}, not float32")
        require(
            stored.shape == layer.shape,
            f"the weight of {layer.name} has shape {stored.shape}, not {layer.shape}",
        )
        original = stored.copy()
        stored[...] = 0
        require(
            np.array_equal(model.weight(layer.name), original),
            f"changing the weight of {layer.name} changes the model",
        )
    require_equal(model.run(case.batch), before, case.tolerance, "after changing the weights handed out")


def a_variant_leaves_the_model_as_it_was(case: Case) -> None:
    """`with_weights` gives another model with the new weights, and the old one keeps its own."""
    model = case.read()
    before, stored = model.run(case.batch), _weights(model)
    doubled = {name: 2 * weight for name, weight in stored.items()}
    variant = model.with_weights(doubled)
    _require_weights(variant, doubled, "a variant")
    _require_weights(model, stored, "the model of a variant")
    require(_moved(variant.run(case.batch), before), "doubled weights change no output")
    require_equal(model.run(case.batch), before, case.tolerance, "the model after a variant of it has run")
    first, *_, last = stored
    both = model.with_weights({first: doubled[first]}).with_weights({last: doubled[last]})
    changed = {name: doubled[name] for name in (first, last)}
    _require_weights(both, stored | changed, "a variant of a variant")
    same = model.with_weights(changed).run(case.batch)
    require_equal(both.run(case.batch), same, case.tolerance, "a variant of a variant")
    for layer in both.layers():
        largest = float(np.abs((stored | changed)[layer.name]).max())
        recorded = float(max(layer.weight.max.max(), -layer.weight.min.min()))
        require(
            bool(np.isclose(recorded, largest, rtol=1e-4)),
            f"the record of {layer.name} is not of its new weight",
        )


def stored_weights_change_nothing(case: Case) -> None:
    """A variant with the weights as they are gives the outputs of the model."""
    model = case.read()
    expected = model.run(case.batch)
    require_equal(
        model.with_weights(_weights(model)).run(case.batch), expected, case.tolerance, "with its own weights"
    )
    require_equal(model.with_weights({}).run(case.batch), expected, case.tolerance, "with no new weights")


def weights_that_do_not_fit_are_refused(case: Case) -> None:
    """Unknown names and wrong shapes are refused in one line, in variants and in sweeps."""
    model = case.read()
    name, weight = next(iter(_weights(model).items()))
    longer = np.concatenate([weight, weight[:1]])
    require_refused(lambda: model.weight(_UNKNOWN), "the weight of an unknown layer", _UNKNOWN)
    ways: Mapping[str, Callable[[str, np.ndarray], object]] = {
        "a variant": lambda n, w: model.with_weights({n: w}),
        "a sweep": lambda n, w: list(model.sweep(case.batch, [(n, 0, w)])),
    }
    for what, give in ways.items():
        require_refused(partial(give, _UNKNOWN, weight), f"{what} of an unknown layer", _UNKNOWN)
        require_refused(partial(give, name, longer), f"{what} of another shape", name)
        require_refused(partial(give, name, weight.reshape(-1)), f"{what} of another rank", name)


def _weights(model: Model) -> dict[str, np.ndarray]:
    return {layer.name: model.weight(layer.name) for layer in model.layers()}


def _require_weights(model: Model, expected: dict[str, np.ndarray], whose: str) -> None:
    for name, weight in expected.items():
        require(
            np.array_equal(model.weight(name), weight), f"{whose} has another weight {name} than it should"
        )


def _moved(outputs: Batch, before: Batch) -> bool:
    return any(
        not np.allclose(mine[name], theirs[name], rtol=1e-3, atol=1e-6)
        for mine, theirs in zip(outputs.groups, before.groups, strict=True)
        for name in before.names
    )
