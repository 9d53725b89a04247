"""Forms of detectors' outputs: one file each, found by name or by the outputs. Packages announce `lampq.decoders`."""

from __future__ import annotations

from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.registry import Registry
from lampq.metrics.decoders.decoder import Decode, Decoder
from lampq.metrics.decoders.detr import DETR
from lampq.metrics.decoders.ssd import SSD
from lampq.metrics.decoders.yolo import YOLO, YOLO_CHOSEN, YOLO_V5, YOLO_V8

DECODERS = Registry(
    (DETR, YOLO, SSD, YOLO_V5, YOLO_V8, YOLO_CHOSEN),
    what="decoder",
    group="lampq.decoders",
    error=RecordError,
)


def decoder_of(choice: str | Decoder | Decode) -> Decoder:
    """The decoder of a name or `module:function`; a function is one, and a decoder itself.

    Raises:
        RecordError: There is none of this name.
        AdapterError: The function cannot be imported.
    """
    if isinstance(choice, Decoder):
        return choice
    if not isinstance(choice, str):
        return Decoder(name=getattr(choice, "__name__", "decoder"), decode=choice)
    if ":" not in choice:
        return DECODERS.get(choice)
    from lampq.adapters.data import load_function

    return Decoder(name=choice, decode=load_function(choice))


def fitting(outputs: Batch) -> Decoder:
    """The decoder that the outputs look like.

    Raises:
        RecordError: None.
    """
    shapes = {name: array.shape for name, array in outputs.groups[0].items()}
    for decoder in DECODERS.loaded.values():
        if decoder.fits is not None and decoder.fits(shapes):
            return decoder
    listed = ", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())
    raise RecordError(
        f"outputs {listed} are of no form known here; name a decoder ({', '.join(DECODERS.loaded)}) or give a "
        f"function (--decoder module:function)"
    )


__all__ = ["DECODERS", "Decode", "Decoder", "decoder_of", "fitting"]
