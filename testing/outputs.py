"""Laws of outputs: what they mean is inferred for all of them, and can be said otherwise."""

from __future__ import annotations

from lampq.core.values.head import IGNORE, VALUES, HeadChoice
from lampq.testing.case import Case, require, require_equal, require_refused


def every_output_has_a_head(case: Case) -> None:
    """Heads are of the described outputs, one each, and one that is judged is there for the laws to look at."""
    model = case.read()
    heads, specs = [head.name for head in model.heads], [spec.name for spec in model.output_specs]
    require(len(set(heads)) == len(heads), f"two heads have one name: {heads}")
    require(set(heads) == set(specs), f"heads are of {heads}, output_specs of {specs}")
    require(any(head.judged for head in model.heads), "no output of the model is judged")


def an_output_can_be_ignored(case: Case) -> None:
    """It is left out, the others stay, and the model itself as well; without any, a run is refused."""
    model = case.read()
    outputs = model.run(case.batch)
    first, *others = outputs.names
    ignored = model.with_heads([HeadChoice(name=first, role=IGNORE)])
    if others:
        expected = outputs.only(others)
        require_equal(ignored.run(case.batch), expected, case.tolerance, f"without output {first}")
    nothing = model.with_heads([HeadChoice(name=name, role=IGNORE) for name in outputs.names])
    require(not any(head.judged for head in nothing.heads), "outputs that are ignored are judged")
    require_refused(lambda: nothing.run(case.batch), "a run with nothing to judge", first)
    require_equal(model.run(case.batch), outputs, case.tolerance, "the model with all outputs")
    require(len(nothing.layers()) == len(model.layers()), "a model with nothing to judge has other layers")


def a_choice_changes_one_output(case: Case) -> None:
    """It has the role and weight that were asked for, keeps its place, and new weights stay in place."""
    model = case.read()
    name = next(head.name for head in model.heads if head.judged)
    layer = model.layers()[0].name
    variant = model.with_weights({layer: 2 * model.weight(layer)})
    chosen = variant.with_heads([HeadChoice(name=name, role=VALUES, weight=0.5)])
    roles = {head.name: (head.role, head.weight) for head in chosen.heads}
    before = {head.name: (head.role, head.weight) for head in model.heads}
    require(roles == {**before, name: (VALUES, 0.5)}, f"{name}=values:0.5 gives {roles}")
    same = model.with_heads([HeadChoice(name=name, role=VALUES)]).with_weights(
        {layer: 2 * model.weight(layer)}
    )
    require_equal(chosen.run(case.batch), same.run(case.batch), case.tolerance, "a choice on a variant")


def unknown_outputs_are_refused(case: Case) -> None:
    """In one line that lists those there are."""
    model = case.read()
    names = [spec.name for spec in model.output_specs]
    choice = HeadChoice(name="no such output", role=VALUES)
    require_refused(lambda: model.with_heads([choice]), "an unknown output", "no such output", *names)
