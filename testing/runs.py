"""Laws of runs: what comes out, by name, sample by sample."""

from __future__ import annotations

import numpy as np

from lampq.core.values.batch import Batch
from lampq.core.values.head import CLASSES
from lampq.testing.case import Case, require, require_equal


def a_run_gives_the_judged_outputs(case: Case) -> None:
    """They come by name in the order of the heads, samples first, float32, in the groups of the inputs, canonical."""
    model = case.read()
    inputs = case.inputs(model)
    outputs = model.run(inputs)
    judged = [head for head in model.heads if head.judged]
    names = tuple(head.name for head in judged)
    require(outputs.names == names, f"a run gives {outputs.names}; judged are {names}")
    require(outputs.sizes == inputs.sizes, f"groups of {inputs.sizes} samples come out as {outputs.sizes}")
    for group in outputs.groups:
        for head in judged:
            array = group[head.name]
            require(array.dtype == np.float32, f"output {head.name} is {array.dtype}, not float32")
            if head.role == CLASSES and head.activated:
                sums = np.exp(array.astype(np.float64)).sum(axis=head.axis)
                require(
                    bool(np.allclose(sums, 1, atol=1e-3)),
                    f"output {head.name} of a softmax is no logarithm of probabilities",
                )


def samples_are_independent(case: Case) -> None:
    """Some of the samples, in any order, give what they give among all."""
    model = case.read()
    inputs = case.inputs(model)
    outputs = model.run(inputs)
    numbers = list(range(inputs.samples))
    parts = [[number] for number in numbers] + [numbers[1:], numbers[:-1], numbers[::-1], numbers * 2]
    for part in parts:
        require_equal(
            model.run(inputs.take(part)), outputs.take(part), case.tolerance, f"samples {part} of the batch"
        )


def groups_keep_their_order(case: Case) -> None:
    """Samples in several groups come out in the same groups."""
    model = case.read()
    inputs = case.inputs(model)
    outputs = model.run(inputs)
    orders = [[number] for number in reversed(range(inputs.samples))]
    apart = Batch([group for numbers in orders for group in inputs.take(numbers).groups])
    expected = Batch([group for numbers in orders for group in outputs.take(numbers).groups])
    require_equal(model.run(apart), expected, case.tolerance, "samples in groups of their own")


def a_run_can_be_repeated(case: Case) -> None:
    """The same inputs give the same outputs, also of the model read again."""
    model = case.read()
    outputs = model.run(case.batch)
    require_equal(model.run(case.batch), outputs, case.tolerance, "a second run")
    require_equal(case.read().run(case.batch), outputs, case.tolerance, "the model read again")
