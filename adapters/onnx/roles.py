"""What a layer does, judged by its place in the graph; used where its name says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.sites import Site

# fmt: off
_ACTIVATIONS = frozenset((
    "Relu", "Gelu", "Erf", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "Elu", "Selu",
    "Celu", "Mish", "Swish", "Softplus", "Clip", "FastGelu", "QuickGelu", "BiasGelu", "ThresholdedRelu",
))
# Operators through which a value stays the same features, scaled, shifted, moved or normalized.
_PASSING = _ACTIVATIONS | frozenset((
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Reciprocal", "Where", "Min", "Max", "Equal",
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice", "Gather", "Concat", "Expand",
    "Pad", "Cast", "CastLike", "Identity", "Dropout", "RotaryEmbedding", "Softmax", "LogSoftmax",
    "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "GroupNormalization",
    "BatchNormalization", "InstanceNormalization", "LpNormalization",
    "ReduceMean", "ReduceMax", "ReduceL2", "GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool",
))
# fmt: on
_FUSED_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "PagedAttention"})


def positions(flow: Flow, sites: Sequence[Site]) -> list[str | None]:
    """A kind for each site, or None where its place says nothing.

    Rules, in this order: what feeds the scores of a softmax is q or k, what its probabilities multiply is v,
    several of them are qkv; a convolution on the input is the patch embedding; the last layer before the
    logits is the head; what reads the result of attention is proj; a pair of layers with a nonlinearity
    between is fc1 and fc2.
    """
    return _Roles(flow, sites).kinds()


def _is_table(site: Site) -> bool:
    """Whether a constant is added, as positions are, or otherwise joined with what is computed."""
    return all(use.node.op_type in ("Add", "Sub", "Mul", "Concat", "Where", "Expand") for use in site.uses)


class _Roles:
    def __init__(self, flow: Flow, sites: Sequence[Site]) -> None:
        self._flow = flow
        self._sites = sites
        self._site_of = {flow.place(use.node): site for site in sites for use in site.uses}
        # Shapes computed from other tensors tie nothing together: leave them out.
        self._numeric = set(flow.inputs)
        self._relevant = set()
        for node in flow.nodes:
            if node.op_type not in ("Shape", "Size") and any(v in self._numeric for v in flow.reads[node]):
                self._relevant.add(node)
                self._numeric.update(node.outputs)
        self._attention: dict[tuple[ir.Node, int], str] = {}
        self._contexts: list[ir.Value] = []
        self._find_attention()

    def kinds(self) -> list[str | None]:
        after_attention = self._sites_after(self._contexts)
        on_input = self._sites_after(self._flow.inputs)
        kinds: dict[Site, str] = {}
        second: set[Site] = set()
        for site in self._sites:
            region, readers = self._region([self._flow.place(use.node).outputs[0] for use in site.uses])
            nexts = {self._site_of[n] for n, _ in readers if n in self._site_of}
            roles = {self._attention[reader] for reader in readers if reader in self._attention}
            bent = any(v.producer() is not None and v.producer().op_type in _ACTIVATIONS for v in region)  # type: ignore[union-attr]
            linear = site.form == "linear"
            if any(use.node.op_type == "Attention" for use in site.uses):
                kinds[site] = "qkv"
            elif roles:
                kinds[site] = roles.pop() if len(roles) == 1 else "qkv"
            elif site.form == "lookup" or (site.form == "other" and _is_table(site)):
                kinds[site] = "embedding"
            elif not linear and site.form != "recurrent" and site in on_input:
                kinds[site] = "patch_embed"
            elif not region.isdisjoint(self._flow.outputs):
                kinds[site] = "head"
            elif "Conv" in site.uses[0].node.op_type:
                kinds[site] = "conv"
            elif not linear:
                continue
            elif site in after_attention:
                kinds[site] = "proj"
            elif bent and nexts and all(n.form == "linear" for n in nexts):
                kinds[site] = "fc1"
                second |= nexts
            elif site in second:
                kinds[site] = "fc2"
        return [kinds.get(site) for site in self._sites]

    def _find_attention(self) -> None:
        """Mark the products before and after each softmax, and the operators that are whole attentions."""
        for node in self._flow.nodes:
            if node.op_type in _FUSED_ATTENTION and node not in self._site_of:
                self._attention |= {(node, i): role for i, role in enumerate("qkv")}
                self._contexts.append(node.outputs[0])
            if node.op_type != "Softmax":
                continue
            scores = self._product_before(node)
            context = self._product_after(node)
            if scores is not None and context is not None:
                self._attention |= {(scores, 0): "q", (scores, 1): "k"}
                after, index = context
                self._attention[after, 1 - index] = "v"
                self._contexts.append(after.outputs[0])

    def _is_product(self, node: ir.Node) -> bool:
        """A product of two computed matrices."""
        if node.op_type not in ("MatMul", "FusedMatMul", "Einsum") or node in self._site_of:
            return False
        return len(node.inputs) == 2 and all(value in self._numeric for value in node.inputs)

    def _product_before(self, softmax: ir.Node) -> ir.Node | None:
        stack, seen = [softmax.inputs[0]], set()
        while stack:
            value = stack.pop()
            node = value.producer() if value is not None else None
            if node is None or node in seen:
                continue
            seen.add(node)
            if self._is_product(node):
                return node
            if node.op_type in _PASSING:
                stack += [v for v in node.inputs if v in self._numeric]
        return None

    def _product_after(self, softmax: ir.Node) -> tuple[ir.Node, int] | None:
        stack, seen = [softmax.outputs[0]], set()
        while stack:
            value = stack.pop()
            for node, index in value.uses():
                if self._is_product(node):
                    return node, index
                if node.op_type in _PASSING and node not in seen:
                    seen.add(node)
                    stack += node.outputs
        return None

    def _sites_after(self, values: Sequence[ir.Value]) -> set[Site]:
        """Sites that read something which depends on one of the values alone, with no other layer between."""
        readers_of = set()
        for value in values:
            _, readers = self._region([value])
            readers_of |= {self._site_of[node] for node, _ in readers if node in self._site_of}
        return readers_of

    def _region(self, starts: Sequence[ir.Value]) -> tuple[set[ir.Value], set[tuple[ir.Node, int]]]:
        """Values that depend on the starts alone, and the operators that read them but do not belong.

        A sum with another branch, a layer, and a product of two matrices end the region.
        """
        region = set(starts)
        readers: set[tuple[ir.Node, int]] = set()
        stack = list(starts)
        while stack:
            for node, index in stack.pop().uses():
                if node not in self._relevant:
                    continue
                inside = all(v in region for v in self._flow.reads[node] if v in self._numeric)
                if inside and node.op_type in _PASSING and node not in self._site_of:
                    fresh = [v for v in node.outputs if v not in region]
                    region.update(fresh)
                    stack += fresh
                else:
                    readers.add((node, index))
        return region, readers
