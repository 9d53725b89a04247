"""How the convolutions of a PyTorch model move over their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lampq.adapters.torch.uses import Use
from lampq.core.values.window import Window


def windows(uses: Mapping[str, Sequence[Use]], shapes: Mapping[str, Sequence[int]]) -> dict[str, Window]:
    """What kernels see, by layer; all uses of a weight must be of the whole of it, and move alike.

    Args:
        uses: By layer.
        shapes: Of the weights, by layer.
    """
    seen = {name: {_window(use, shapes[name]) for use in own} for name, own in uses.items()}
    return {
        name: window
        for name, different in seen.items()
        if len(different) == 1 and (window := next(iter(different))) is not None
    }


def _window(use: Use, shape: Sequence[int]) -> Window | None:
    whole = tuple((0, side - 1) for side in shape)
    if use.form != "conv" or use.convolution is None or use.channel_axis != 0 or use.box != whole:
        return None
    strides, pads, dilations, groups, kernel = use.convolution
    return Window(
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        pads=tuple((pad, pad) for pad in pads),
        groups=groups,
    )
