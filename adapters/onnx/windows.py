"""How the convolutions of an ONNX graph move over their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lampq.adapters.onnx.sites import Site
from lampq.core.values.window import Window

_AS_GIVEN = ("NOTSET", "")


def windows(sites: Sequence[Site]) -> dict[str, Window]:
    """By layer, those of plain convolutions; all uses of a weight that is shared must move alike."""
    return {site.name: window for site in sites if (window := _window(site)) is not None}


def _window(site: Site) -> Window | None:
    if site.form != "conv" or any(use.chain for use in site.uses):
        return None
    every = {_of_node(use.node, site.shape[2:]) for use in site.uses}
    return every.pop() if len(every) == 1 else None


def _of_node(node: ir.Node, kernel: tuple[int, ...]) -> Window | None:
    """The window of a Conv; None where its padding is of a kind of its own."""
    rank, attributes = len(kernel), node.attributes
    pads = attributes.get_ints("pads", [0] * (2 * rank))
    auto = attributes.get_string("auto_pad", _AS_GIVEN[0])
    if auto not in (*_AS_GIVEN, "VALID", "SAME_UPPER"):
        return None
    around: tuple[tuple[int, int], ...] | None = tuple(zip(pads[:rank], pads[rank:], strict=True))
    if auto == "VALID":
        around = ((0, 0),) * rank
    return Window(
        kernel=kernel,
        strides=tuple(attributes.get_ints("strides", [1] * rank)),
        dilations=tuple(attributes.get_ints("dilations", [1] * rank)),
        pads=None if auto == "SAME_UPPER" else around,
        groups=attributes.get_int("group", 1),
    )
