"""The law of models without layers: they answer like all others, and it is the verbs that refuse them."""

from __future__ import annotations

import numpy as np

from lampq.core.values.errors import LampqError
from lampq.testing.case import Case, LawError, require, require_equal, require_refused


def a_model_without_layers_answers(case: Case) -> None:
    """It has no records, runs, sweeps and taps nothing, and refuses weights of unknown layers."""
    model = case.empty()
    try:
        layers = model.layers()
    except LampqError as err:
        raise LawError(f"layers() of a model without any fails: {err}") from err
    require(layers == (), "layers() of a model without any is not ()")
    outputs = model.run(case.batch)
    require_equal(model.with_weights({}).run(case.batch), outputs, case.tolerance, "without new weights")
    require(not list(model.taps(case.batch)), "a model without layers has inputs of layers")
    require(not list(model.sweep(case.batch, [])), "a sweep without candidates gives outputs")
    require(model.file_bytes() > 0 and model.rest_bytes() >= 0, "a model without layers has no size")
    new = np.ones((8, 8), np.float32)
    require_refused(lambda: model.weight("x"), "the weight of an unknown layer")
    require_refused(lambda: model.with_weights({"x": new}), "a variant of an unknown layer")
    require_refused(lambda: list(model.sweep(case.batch, [("x", 0, new)])), "a sweep of an unknown layer")
