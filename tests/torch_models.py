"""Small modules that lay their weights out in all the ways real models do. Random weights, fixed seeds."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lampq.adapters.torch.fisher import fisher_sums
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.core.values.progress import quiet

# Tiny models: a second thread costs more than it gives.
torch.set_num_threads(1)


def seeded(build, *args, **kwargs):
    torch.manual_seed(0)
    return build(*args, **kwargs).eval()


class PackedViT(nn.Module):
    """nn.TransformerEncoder: q, k and v in one parameter, tokens before samples inside attention."""

    def __init__(self, dim=16, depth=2, classes=4, batch_first=True):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        block = nn.TransformerEncoderLayer(dim, 2, 2 * dim, batch_first=batch_first)
        self.transformer = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        for p in self.transformer.parameters():
            nn.init.normal_(p, std=0.3)
        self.head = nn.Linear(dim, classes)
        self.batch_first = batch_first

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.batch_first:
            return self.head(self.transformer(x)[:, 0])
        return self.head(self.transformer(x.transpose(0, 1))[0])


class WindowNet(nn.Module):
    """Shifted windows, as in Swin: samples split into windows that attend within themselves."""

    def __init__(self, dim=8, classes=3):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 2, 2)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduction = nn.Linear(4 * dim, dim, bias=False)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        shifted = torch.roll(x, (-1, -1), (1, 2))
        windows = shifted.reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        q, k, v = self.qkv(windows).chunk(3, -1)
        windows = self.proj(torch.softmax(q @ k.mT, -1) @ v)
        back = windows.reshape(n, h // 2, w // 2, 2, 2, c).transpose(2, 3).reshape(n, h, w, c)
        x = x + torch.roll(back, (1, 1), (1, 2))
        x = torch.cat([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduction(x).mean((1, 2)))


class ConvNet(nn.Module):
    """Groups, dilation, padding, a depthwise layer, batch norm, and operators in place."""

    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.line = nn.Conv1d(12, 6, 3)
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        y = self.grouped(x)
        y += x
        x = self.pointwise(self.depthwise(functional.relu_(y)))
        return self.head(self.line(x.flatten(2)).mean(2))


class Functional(nn.Module):
    """Weights that no module owns: (inputs, outputs) order, left factors, experts, slices, one weight twice."""

    def __init__(self, dim=12, classes=3):
        super().__init__()
        self.inputs_first = nn.Parameter(torch.randn(dim, 16) / 4)
        self.left = nn.Parameter(torch.randn(10, 16) / 4)
        self.experts = nn.Parameter(torch.randn(3, 10, 9) / 3)
        self.packed = nn.Parameter(torch.randn(18, 9) / 3)
        self.shared = nn.Linear(9, 9)
        self.scale = nn.Parameter(torch.randn(9, 9))
        self.table = nn.Parameter(torch.randn(9, 9))
        self.small = nn.Parameter(torch.randn(9, 4))
        self.unused = nn.Parameter(torch.randn(9, 9))
        self.head = nn.Linear(9, classes)

    def forward(self, x):
        x = torch.tanh(x @ self.inputs_first)
        x = torch.tanh(self.left @ x.mT).mT
        x = torch.stack([torch.tanh(x)] * 3, 1).reshape(len(x), 3, -1, 10)
        x = torch.einsum("ngtk,gkm->ngtm", x, self.experts).sum(1)
        a = functional.linear(x, self.packed[:9])
        b = functional.linear(torch.tanh(x), self.packed[9:])
        x = self.shared(torch.tanh(self.shared(a + b)))
        x = x + (x @ self.small) @ torch.ones(4, 9)
        x = x * self.scale.mean(0) + (self.table @ self.table.mT).mean()
        return self.head(x.mean(1))


class Tokens(nn.Module):
    """Text: an embedding table that is also the output layer."""

    def __init__(self, words=20, dim=8):
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.place = nn.Embedding(32, dim)
        self.mix = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, words, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids) + self.place(torch.arange(ids.shape[1]))
        return self.out(torch.tanh(self.mix(x)).mean(1))


MODELS = {
    "packed": (lambda: seeded(PackedViT), (3, 8, 8)),
    "sequence first": (lambda: seeded(PackedViT, batch_first=False), (3, 8, 8)),
    "windows": (lambda: seeded(WindowNet), (3, 8, 8)),
    "convolutions": (lambda: seeded(ConvNet), (3, 8, 8)),
    "functional": (lambda: seeded(Functional), (5, 12)),
    "tokens": (lambda: seeded(Tokens), (6,)),
}


def make_batch(shape, samples=5, seed=1):
    rng = np.random.default_rng(seed)
    if len(shape) == 1:
        return rng.integers(0, 20, (samples, *shape))
    return rng.normal(size=(samples, *shape)).astype(np.float32)


def fisher_of(model, batch, *, batch_size=16, progress=quiet, **draws):
    """`fisher_sums` of a batch that its own outputs are judged by."""
    reference = measure_reference(model, batch)
    settings = {"batch_size": batch_size, "progress": progress}
    return fisher_sums(model.variant, reference.inputs, reference.readout, Draws(**draws), **settings)


def read_named(name, **options):
    """A `TorchModel` of the zoo and a batch for it."""
    from lampq.adapters.torch import read

    build, shape = MODELS[name]
    return read(build(), input_shape=shape, **options), make_batch(shape)
