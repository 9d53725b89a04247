"""Samples made from a model alone, where there are no data: pictures, texts, or plain values.

`synthetic` makes them, by whatever the model tells of its training data: normalizations, classes, attention.
"""

from lampq.adapters.synthetic.making import synthetic
from lampq.adapters.synthetic.recipe import SynthesisRecipe

__all__ = ["SynthesisRecipe", "synthetic"]
