"""Plans of given widths, and which tools name layers and which the nodes of a graph."""

from lampq.conversions import imports
from lampq.conversions.target import Target

OF_NAMES = ("json", "csv", "torchao", "compressed-tensors", "quanto", "modelopt", "aimet")
OF_NODES = ("ort-nbits", "ort-qdq", "nncf", "aimet")


def given_plan(target, widths):
    named = {
        layer.name: width for layer, width in zip(target.layers, widths, strict=True) if width is not None
    }
    return imports.given_plan(named, target, notes=())


def facts(plan):
    return [(layer.name, layer.weight_bits, layer.activation_bits) for layer in plan.layers]


def mixed_plan(source, widths, activations=(None,)):
    target = Target.of(source)
    count = len(target.layers)
    return given_plan(
        target, [(widths[i % len(widths)], activations[i % len(activations)]) for i in range(count)]
    )
