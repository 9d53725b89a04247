"""Small images and inputs that the tests of the data adapter share."""

import numpy as np
from PIL import Image

from lampq.adapters.data import read_data
from lampq.core.values.input_spec import InputSpec

TINY = InputSpec(name="x", shape=(None, 3, 8, 8))


def spec(*shape, dtype="float32"):
    return InputSpec(name="x", shape=shape, dtype=dtype)


def picture(seed=0, height=8, width=8, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    image.save(path, **options)
    return path


def read_one(folder, input_spec=TINY, **options):
    return read_data(folder, input_spec=input_spec, **options).load().inputs["x"][0]


def save_classes(root):
    """Three classes of 5, 3 and 1 images, written in an order of no kind."""
    names = ["dog/3", "cat/1", "dog/1", "ant/x", "dog/2", "cat/3", "dog/10", "cat/2", "dog/4"]
    for index, name in enumerate(names):
        save(root / f"{name}.png", picture(index))
    return root
