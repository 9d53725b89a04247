"""Records of a module's quantizable weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.torch.variant import Varied
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer


def layer_records(model: Varied, chosen: Mapping[str, str]) -> Iterator[Layer]:
    """Records of all layers in the order the model uses them.

    Args:
        model: The model.
        chosen: Pattern -> kind, overriding what names say.

    Raises:
        RecordError: One holds NaN or infinity.
    """
    runtime, names = model.runtime, list(model.parameters)
    kinds = [
        infer_kind(
            name,
            convolution=model.uses(name)[0].convolution is not None,
            position=runtime.places.get(parameter),
        )
        for name, parameter in model.parameters.items()
    ]
    for name, kind in zip(names, override_kinds(names, kinds, chosen), strict=True):
        uses = model.uses(name)
        main = next((use for use in uses if use.form != "lookup"), uses[0])
        shares = tuple(use.module for use in uses if use is not main)
        weight = model.weight(name)
        layer = Layer.from_weight(name, weight, kind=kind, channel_axis=main.channel_axis, shares=shares)
        scale = runtime.foldable.get(model.parameters[name])
        folded = None if scale is None else Fingerprint.from_array(weight * scale)
        yield layer if folded is None else dataclasses.replace(layer, folded=folded)
