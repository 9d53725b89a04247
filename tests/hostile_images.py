"""Hostile folders of images, and models that read them."""

import io
import os
import struct
import zlib

import numpy as np
from hostile_parts import ESCAPES, onnx_file, profile_with
from onnx import helper, numpy_helper
from PIL import Image


def _png(width, height, *chunks):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in [(b"IHDR", head), *chunks, (b"IEND", b"")])


def images(folder):
    """One image a folder, and a model that takes images."""
    flat = helper.make_node("Flatten", ["x"], ["f"])
    weight = numpy_helper.from_array(np.ones((192, 10), np.float32) / 9, "w")
    product = helper.make_node("MatMul", ["f", "w"], ["y"])
    onnx_file(folder / "images.onnx", [flat, product], [weight], shape=("n", 3, 8, 8))
    frames = [Image.new("L", (8, 8), shade % 256) for shade in range(500)]
    gif, tiff = io.BytesIO(), io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(tiff, "TIFF", save_all=True, append_images=frames[1:])
    bomb = zlib.compress(bytes(3 << 24))
    endless = tiff.getvalue().replace(struct.pack("<I", 8), struct.pack("<I", 8), 1)
    contents = {
        "declared.png": _png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(100)))),
        "large.png": _png(8000, 8000, (b"IDAT", bomb)),
        "warned.png": _png(10_000, 10_000, (b"IDAT", bomb)),
        "remark.png": _png(8, 8, (b"zTXt", b"a\x00\x00" + bomb * 5), (b"IDAT", zlib.compress(bytes(200)))),
        "profile.png": _png(8, 8, (b"iCCP", b"a\x00\x00" + bomb), (b"IDAT", zlib.compress(bytes(200)))),
        "zero.png": _png(0, 8, (b"IDAT", b"")),
        "frames.gif": gif.getvalue(),
        "frames.tiff": endless,
        "text.jpg": ESCAPES.encode("utf-8"),
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(canary) (w) file\n",
        "canvas.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif.getvalue()[10:],
    }
    commands = {"images.onnx": ["inspect", "images.onnx"]}
    for name, content in contents.items():
        (folder / f"i_{name}").mkdir()
        (folder / f"i_{name}" / name).write_bytes(content)
        commands[f"i_{name}"] = _image_profile(f"i_{name}")
    (folder / "i_pipe").mkdir()
    os.mkfifo(folder / "i_pipe" / "a.png")
    (folder / "i_device").mkdir()
    (folder / "i_device" / "a.png").symlink_to("/dev/zero")
    return {**commands, **{name: _image_profile(name) for name in ("i_pipe", "i_device")}}


def _image_profile(folder):
    return [word if word != "m.onnx" else "images.onnx" for word in profile_with(folder)]
