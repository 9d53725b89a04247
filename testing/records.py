"""Laws of records: what a model says of itself, its layers and their bytes."""

from __future__ import annotations

from lampq.core.measuring.model import Model
from lampq.core.quantizing.coding import Coding
from lampq.core.values.errors import AdapterError
from lampq.core.values.layer import Layer, worth_quantizing
from lampq.testing.case import Case, require

_CONTAINERS = ("bitplane", "int8")
_WIDTHS = range(2, 9)


def a_digest_is_of_what_is_stored(case: Case) -> None:
    """It is the same for every reading and every variant, and another one for another model."""
    model = case.read()
    layer = model.layers()[0].name
    variant = model.with_weights({layer: 2 * model.weight(layer)})
    require(bool(model.digest), "the digest is empty")
    require(case.read().digest == model.digest, "the digest changes from reading to reading")
    require(variant.digest == model.digest, "the digest changes with new weights")
    require(model.with_coding(Coding()).digest == model.digest, "the digest changes with the coding")
    require(case.other().digest != model.digest, "another model has the same digest")


def layers_are_the_same_every_time(case: Case) -> None:
    """Records are measured once, have names of their own, and agree from reading to reading; none is too small."""
    model = case.read()
    layers, again = model.layers(), model.layers()
    require(bool(layers), "the model has no layers")
    same = len(again) == len(layers) and all(a is b for a, b in zip(layers, again, strict=True))
    require(same, "layers are measured anew each time")
    names = [layer.name for layer in layers]
    require(len(set(names)) == len(names), f"two layers have one name: {names}")
    for layer in layers:
        require(
            worth_quantizing(layer.shape), f"layer {layer.name} has {layer.size} weights only, and is listed"
        )
    reread = case.read().layers()
    require(
        [_identity(a) for a in layers] == [_identity(b) for b in reread], "another reading has other layers"
    )
    clashes = [name for name, reason in model.skipped if not (name and reason)]
    require(not clashes, "a skipped weight has no name or no reason")


def bytes_grow_with_bits(case: Case) -> None:
    """Payloads are None or positive, never smaller for more bits, and every layer has some width."""
    model = case.read()
    for layer in model.layers():
        offered = False
        for container in _CONTAINERS:
            sizes = [model.payload_bytes(layer, bits, container) for bits in _WIDTHS]
            known = [size for size in sizes if size is not None]
            offered |= bool(known)
            right = all(isinstance(size, int) and size > 0 for size in known) and known == sorted(known)
            require(right, f"layer {layer.name} takes {sizes} bytes at 2 to 8 bits as {container}")
        require(offered, f"layer {layer.name} can be stored at no width")
    _require_sizes(model)


def a_coding_is_a_variant(case: Case) -> None:
    """`with_coding` leaves the model its own; blocks are taken, with bytes for their scales, or refused."""
    model = case.read()
    coding, blocks = model.coding, Coding(block=32)
    require(model.with_coding(Coding()).coding is not coding, "with_coding gives no coding of its own")
    layer = max(model.layers(), key=lambda each: each.size)
    try:
        variant = model.with_coding(blocks)
    except AdapterError:
        return
    require(variant.coding is blocks and model.coding is coding, "with_coding changes the model, or nothing")
    pairs = [
        (model.payload_bytes(layer, b, "bitplane"), variant.payload_bytes(layer, b, "bitplane"))
        for b in _WIDTHS
    ]
    right = all(one is None or other is None or one <= other for one, other in pairs)
    require(right, f"layer {layer.name} takes {pairs} bytes without blocks and with them")


def _require_sizes(model: Model) -> None:
    rest, more, whole = model.rest_bytes(), model.rest_bytes(activations=True), model.file_bytes()
    require(whole > 0 and 0 <= rest <= more, f"file_bytes is {whole}, rest_bytes {rest}, with inputs {more}")
    odd = {name: bits for name, (bits, _) in model.stored_bits().items() if not 1 <= bits <= 8}
    require(not odd, f"stored widths are {odd}")


def _identity(layer: Layer) -> tuple[object, ...]:
    return (
        layer.name,
        layer.kind,
        layer.shape,
        layer.channel_axis,
        layer.fingerprint.to_text(),
        layer.shares,
    )
