"""A float ONNX file that computes what a quantized model computes: activations rounded by standard operators.

Nothing in it is a quantization operator and nothing is stored smaller, so that any runtime gives the same numbers, at
any width and for any quantizer: what people need to judge activations of 4 bits on their own pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import flow, inputs, products, save, trials, verify
from lampq.adapters.onnx.arrays import LOWEST_OPSET, GraphOperators
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.layout import Layout, layout
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.sites import Site, Use
from lampq.adapters.onnx.trials import Arrays
from lampq.adapters.onnx.variant import Varied
from lampq.adapters.onnx.weights import TAPPED
from lampq.adapters.onnx.write import drop_traces
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.messages import listed

SIMULATED_KEY = "lampq.simulated"
"""Key of the model's metadata that says how each site is rounded."""

_ROUNDED = (*TAPPED, "product")
# Samples that places and roundings are checked with.
_SAMPLES = 2
# Another order of sums may tip a value to the next code; more of them are another rounding.
_TIPPED, _SAME = 5e-3, 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """An operator's input that is rounded.

    Attributes:
        site: Name of the site.
        rule: How.
        node: The operator.
        index: The input.
        sums: Axis that it sums over, counted from the end; 0 for a convolution.
    """

    site: str
    rule: ActivationRule
    node: ir.Node
    index: int
    sums: int

    @property
    def value(self) -> ir.Value:
        """What the operator reads there."""
        value = self.node.inputs[self.index]
        assert value is not None  # Places are made of what is read.
        return value

    def leading(self, ndim: int) -> int:
        """Axes that samples and rows, or heads, lie along together."""
        return ndim - 2 if "@" in self.site or self.sums == -2 else ndim - 1


def simulate(
    model: Varied, rules: Mapping[str, ActivationRule], path: Path, batch: BatchLike | None = None
) -> float:
    """Write a model with the weights that it has, and with sites rounded in float arithmetic.

    Args:
        model: The model, its weights replaced by rounded ones.
        rules: By layer and by site of a product's factor.
        path: The file to write, replaced if it is there.
        batch: Inputs to check the file with; None makes some of noise.

    Returns:
        The largest share of a site's values that the file rounds to another code than the quantizer does: the last bit
        of a float decides between two.

    Raises:
        AdapterError: A site cannot be rounded, or the file does not round as it should; names the site. Nothing is
            written then.
    """
    graph, sites = fresh_graph(model.variant, LOWEST_OPSET)
    places = list(_places(graph, sites, rules))
    feed, seen = _first_values(model, graph, places, batch, path.parent)
    layouts = _layouts(model, graph, places, feed, seen, path.parent)
    rounded = _round(Emitter(graph), places, layouts)
    graph.metadata_props[SIMULATED_KEY] = _summary(rules)
    drop_traces(graph)
    with save.staged(graph, path) as staged:
        return _check(model, staged, places, layouts, rounded, feed)


def _places(graph: ir.Model, sites: Sequence[Site], rules: Mapping[str, ActivationRule]) -> Iterator[_Place]:
    """Where the rules round.

    Raises:
        AdapterError: A site is not there, or cannot be rounded.
    """
    traced = flow.trace(graph)
    left = dict(rules)
    for site in sites:
        # Tables that are looked up or added, and recurrent layers, have no input to round, whatever the plan says.
        rule = left.pop(site.name, None)
        if rule is None:
            continue
        for use in (use for use in site.uses if use.slot.form in _ROUNDED):
            _refuse_hidden(traced, use.node, site.name)
            yield _Place(site=site.name, rule=rule, node=use.node, index=use.slot.data, sums=_sums(site, use))
    for product in products.factors(traced):
        for index, name in enumerate(product.sites):
            rule = left.pop(name, None)
            if rule is not None:
                yield _Place(site=name, rule=rule, node=product.node, index=index, sums=product.sums[index])
    if left:
        inner = products.fused(traced)
        why = f"; {listed(inner)} keep products inside, export without fusing attention" if inner else ""
        raise AdapterError(f"the graph has no site {listed(list(left))}{why}")


def _refuse_hidden(traced: flow.Flow, node: ir.Node, name: str) -> None:
    if node in traced.places:
        raise AdapterError(
            f"site {name} is inside the body of a {traced.place(node).op_type}, where nothing is rounded; keep its "
            f"input float"
        )


def _sums(site: Site, use: Use) -> int:
    if use.slot.form == "linear":
        return use.slot.contraction
    if use.slot.form in TAPPED:
        return 0
    if use.node.op_type == "MatMul":
        return -1 if use.index == 1 else -2
    raise AdapterError(
        f"site {site.name}: the input of a {use.node.op_type} cannot be rounded here, those of MatMul, Gemm and Conv "
        f"can; keep it float"
    )


def _first_values(
    model: Varied, graph: ir.Model, places: Sequence[_Place], batch: BatchLike | None, folder: Path
) -> tuple[Arrays, Arrays]:
    """A feed of a few samples, and what the places read."""
    names = _names(model, [place.value for place in places])
    try:
        feed, values = verify.first_run(model.variant, graph, names, None, folder)
    except AdapterError:
        if batch is None:
            raise
        feed, values = verify.first_run(model.variant, graph, names, batch, folder)
    samples = model.variant.opened.batch or min(_SAMPLES, _samples(model, feed))
    few = _each(model, feed, slice(samples))
    if samples < _samples(model, feed):
        values = trials.run_graph(model.variant, graph, names, few, folder)
    return few, {**few, **values}


def _layouts(
    model: Varied, graph: ir.Model, places: Sequence[_Place], feed: Arrays, seen: Arrays, folder: Path
) -> list[Layout]:
    opened, samples = model.variant.opened, _samples(model, feed)
    names = _names(model, [place.value for place in places])
    reverse = _each(model, feed, slice(None, None, -1))
    swapped = {**reverse, **trials.run_graph(model.variant, graph, names, reverse, folder)}
    layouts = []
    for place in places:
        name = place.value.name or ""
        layouts.append(
            layout(
                seen[name],
                swapped[name],
                samples,
                sums=place.sums,
                leading=place.leading(seen[name].ndim),
                free=opened.batch is None,
                fixed=all(spec.shape and None not in spec.shape[1:] for spec in opened.specs),
            )
        )
    return layouts


def _round(emitter: Emitter, places: Sequence[_Place], layouts: Sequence[Layout]) -> list[tuple[str, str]]:
    """Round the places in the graph; names of what each reads and of what it makes of it."""
    rounded = []
    for place, at in zip(places, layouts, strict=True):
        ops, value = GraphOperators(emitter, place.node), place.value
        dtype = value.dtype or ir.DataType.FLOAT
        array = ops.array(value, at.sides)
        if dtype != ir.DataType.FLOAT:
            array = ops.node("Cast", (array,), at.sides, to=ir.DataType.FLOAT)
        before = array.value.name or ""
        try:
            result = place.rule.apply(array, at.axes, ops)
        except LampqError as err:
            tag = place.rule.fitted().tag
            raise AdapterError(
                f"site {place.site}, quantizer {tag}: {err}; choose among others with --quantizers"
            ) from err
        rounded.append((before, result.value.name or ""))
        if dtype != ir.DataType.FLOAT:
            result = ops.node("Cast", (result,), at.sides, to=dtype)
        place.node.replace_input_with(place.index, result.value)
    return rounded


def _check(
    model: Varied,
    staged: Path,
    places: Sequence[_Place],
    layouts: Sequence[Layout],
    rounded: Sequence[tuple[str, str]],
    feed: Arrays,
) -> float:
    """Run the file and round again what its sites read.

    Raises:
        AdapterError: An output is not finite, or a site is rounded in another way.
    """
    names = _names(model)
    inner = [name for pair in rounded for name in pair]
    wanted = [name for name in dict.fromkeys((*names, *inner)) if name not in feed]
    values = {**feed, **trials.run_file(model.variant, staged, wanted, feed)}
    worst = 0.0
    for place, at, (before, after) in zip(places, layouts, rounded, strict=True):
        expected = place.rule.apply(values[before], at.axes, np)
        largest = float(np.abs(expected).max(initial=0.0))
        tipped = float((np.abs(values[after] - expected) > _SAME * largest).mean())
        if tipped > max(_TIPPED, 2 / expected.size) or not np.isfinite(values[after]).all():
            raise AdapterError(
                f"site {place.site}: the file rounds {tipped:.1%} of its values in another way than quantizer "
                f"{place.rule.fitted().tag}; nothing was written"
            )
        worst = max(worst, tipped)
    for name in names:
        if values[name].dtype.kind == "f" and not np.isfinite(values[name]).any():
            raise AdapterError(f"output {name} of the simulated model is not finite; nothing was written")
    return worst


def _names(model: Varied, values: Sequence[ir.Value] = ()) -> list[str]:
    """Names of the outputs that are compared, and of values that are computed."""
    computed = [value.name or "" for value in values if value.producer() is not None]
    return list(dict.fromkeys((*verify.compared(model.variant), *computed)))


def _samples(model: Varied, feed: Arrays) -> int:
    return len(next(iter(_fed(model, feed).values()), (None,)))


def _each(model: Varied, feed: Arrays, some: slice) -> Arrays:
    """Some of the samples of a feed; what is fixed stays."""
    chosen = {name: array[some] for name, array in _fed(model, feed).items()}
    count = len(next(iter(chosen.values()))) if chosen else _samples(model, feed)
    return model.variant.opened.feeds(chosen, count)


def _fed(model: Varied, feed: Arrays) -> Arrays:
    """What is not fixed of a feed, samples first."""
    opened = model.variant.opened
    own = {spec.name: feed[spec.name] for spec in opened.specs}
    return inputs.samples_first(own, inputs.sample_axes(opened.flow))


def _summary(rules: Mapping[str, ActivationRule]) -> str:
    """Rules by site, as compact JSON for the model's metadata."""
    return json.dumps({name: rule.fitted().to_json() for name, rule in rules.items()}, separators=(",", ":"))
