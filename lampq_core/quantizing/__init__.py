"""Tensors into codes: grids, clipping, rounding, ranges of activations."""
