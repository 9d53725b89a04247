"""Gradients of models of other formats, whose graphs are rebuilt in PyTorch.

An adapter gives a `graph.Graph`, its graph as a function in PyTorch with the weights as leaves; `rebuilt.Rebuilt` does
the rest. Modules have the faster `lampq.adapters.torch.fisher` and `gradient_rows`.
"""
