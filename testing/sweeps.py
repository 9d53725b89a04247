"""Laws of sweeps: one weight replaced at a time, with what lies in front of it computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lampq.core.measuring.model import Model
from lampq.testing.case import Case, require, require_equal

Candidates = Sequence[tuple[str, int, np.ndarray]]


def a_sweep_gives_what_runs_give(case: Case) -> None:
    """Outputs are those of the model with the one weight replaced, in any order of candidates."""
    model = case.read()
    candidates = _candidates(model)
    runs = {
        (name, option): model.with_weights({name: array}).run(case.batch)
        for name, option, array in candidates
    }
    orders = {
        "in order": candidates,
        "backwards": candidates[::-1],
        "twice over": [*candidates[::2], *candidates[::2]],
    }
    for what, order in orders.items():
        asked = [(name, option) for name, option, _ in order]
        answers = []
        for name, option, outputs in model.sweep(case.batch, order):
            answers.append((name, option))
            require_equal(
                outputs, runs[name, option], case.tolerance, f"a sweep {what}, {name} option {option}"
            )
        require(answers == asked, f"a sweep {what} answers {answers} when asked {asked}")


def a_sweep_starts_from_the_weights_of_its_model(case: Case) -> None:
    """That of a variant has the variant's other weights."""
    model = case.read()
    candidates = _candidates(model)[::2]
    everything = {name: array for name, _, array in candidates}
    variant = model.with_weights(everything)
    for name, _, outputs in variant.sweep(case.batch, [(name, 0, model.weight(name)) for name in everything]):
        rest = {other: array for other, array in everything.items() if other != name}
        expected = model.with_weights(rest).run(case.batch)
        require_equal(outputs, expected, case.tolerance, f"a sweep of a variant, {name} as it was")


def a_sweep_answers_before_it_draws_on(case: Case) -> None:
    """Candidates need not fit in memory together: one is drawn when the one before it has been answered."""
    model = case.read()
    drawn = 0

    def draw() -> Iterator[tuple[str, int, np.ndarray]]:
        nonlocal drawn
        for candidate in _candidates(model):
            drawn += 1
            yield candidate

    for answered, _ in enumerate(model.sweep(case.batch, draw()), start=1):
        require(drawn == answered, f"a sweep has drawn {drawn} candidates before its answer {answered}")


def an_empty_sweep_gives_nothing(case: Case) -> None:
    """No candidates, no answers."""
    require(not list(case.read().sweep(case.batch, [])), "a sweep without candidates gives outputs")


def _candidates(model: Model) -> Candidates:
    """Two options of every layer, in order."""
    return [
        (layer.name, option, (model.weight(layer.name) * factor).astype(np.float32))
        for layer in model.layers()
        for option, factor in enumerate((0.5, -1.0))
    ]
