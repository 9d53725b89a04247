"""What the outputs of a module mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lampq.adapters.torch.outputs import owner
from lampq.adapters.torch.runtime import Runtime
from lampq.core.readouts.choice import chosen_head
from lampq.core.readouts.inference import infer_heads
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import IGNORE, Head, HeadChoice


def heads_of(runtime: Runtime, choices: Sequence[HeadChoice]) -> tuple[Head, ...]:
    """A head for every output, and for every inner tensor that is chosen.

    Args:
        runtime: The module; tensors of `choices` are among its outputs.
        choices: What the user says; later ones win.

    Raises:
        AdapterError: An output cannot be judged.
        RecordError: An output cannot have the role.
    """
    specs = runtime.specs
    outputs = [spec for spec in specs.outputs if spec.name not in specs.unfit]
    inferred = infer_heads(outputs, specs.inputs, task=type(runtime.module).__name__, model_name=runtime.name)
    heads = {head.name: head for head in inferred}
    own = [name for name, head in heads.items() if head.judged and not _of_part(name)]
    for name, head in heads.items():
        if own and head.judged and _of_part(name):
            heads[name] = Head(
                name=name, role=IGNORE, reason="of a part of the model, beside its own outputs"
            )
    for name, why in specs.unfit.items():
        heads[name] = Head(name=name, role=IGNORE, reason=why)
    # An inner tensor is there because somebody names it.
    chosen: Mapping[str, HeadChoice] = {choice.name: choice for choice in choices}
    described = {spec.name: spec for spec in specs.outputs}
    for name, choice in chosen.items():
        if name in specs.unfit and choice.role != IGNORE:
            raise AdapterError(f"{runtime.name}: output {name} {specs.unfit[name]}; it cannot be judged")
        heads[name] = chosen_head(choice, described[name], specs.inputs, heads.get(name))
    return tuple(heads[spec.name] for spec in specs.outputs)


def with_named(runtime: Runtime, choices: Sequence[HeadChoice]) -> Runtime:
    """The module with the inner tensors among its outputs that choices name.

    Raises:
        AdapterError: No output and no submodule is so called.
    """
    known = {spec.name for spec in runtime.specs.outputs}
    inner = tuple(choice.name for choice in choices if choice.name not in known)
    for name in inner:
        if owner(runtime.module, name) is None:
            raise AdapterError(_unknown(runtime, name))
    if not inner:
        return runtime
    extended = runtime.with_inner(inner)
    missing = next((name for name in inner if name not in {s.name for s in extended.specs.outputs}), None)
    if missing is not None:
        raise AdapterError(_unknown(runtime, missing))
    return extended


def _of_part(name: str) -> bool:
    """Whether an output is what a model within the model returns."""
    return any(part.endswith(("_output", "_outputs")) for part in name.split(".")[:-1])


def _unknown(runtime: Runtime, name: str) -> str:
    outputs = ", ".join(str(spec) for spec in runtime.specs.outputs) or "none"
    return (
        f"{runtime.name} has no output or submodule {name!r} that gives a tensor; its outputs are {outputs}"
    )
