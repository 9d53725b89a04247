"""PyTorch models: `read` gives a `TorchModel`, `load_quantized` a module from a file lampq wrote."""

from lampq.adapters.torch.format import load_quantized as load_quantized
from lampq.adapters.torch.format import read as read
