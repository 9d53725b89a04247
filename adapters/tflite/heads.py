"""What the outputs of a TFLite model mean: inferred, unless a user says otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lampq.adapters.tflite.outputs import Output, Outputs
from lampq.core.readouts.choice import chosen_head
from lampq.core.readouts.inference import infer_heads
from lampq.core.values.head import IGNORE, Head, HeadChoice
from lampq.core.values.input_spec import InputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Outputs and what they mean.

    Attributes:
        outputs: The outputs, and inner tensors that are judged.
        heads: The head of each.
    """

    outputs: tuple[Output, ...]
    heads: tuple[Head, ...]

    @property
    def judged(self) -> tuple[tuple[Output, Head], ...]:
        """Those that count."""
        pairs = zip(self.outputs, self.heads, strict=True)
        return tuple((output, head) for output, head in pairs if head.judged)


def inferred(outputs: Outputs, inputs: Sequence[InputSpec], model_name: str) -> Judgement:
    """What the outputs mean as far as the file tells; what cannot be judged is ignored with the reason."""
    heads = infer_heads([output.spec for output in outputs.all], inputs, model_name=model_name)
    fit = (
        dataclasses.replace(head, role=IGNORE, axis=-1, activated=False, mask=None, reason=output.unfit)
        if head.judged and output.unfit
        else head
        for output, head in zip(outputs.all, heads, strict=True)
    )
    return Judgement(outputs=outputs.all, heads=tuple(fit))


def chosen(
    judgement: Judgement, outputs: Outputs, inputs: Sequence[InputSpec], choices: Sequence[HeadChoice]
) -> Judgement:
    """The same outputs with some judged as a user says, and inner tensors beside them.

    Raises:
        AdapterError: Nothing that could be judged is called as a choice says.
        RecordError: A role cannot be.
    """
    pairs = zip(judgement.outputs, judgement.heads, strict=True)
    by_name: dict[str, tuple[Output, Head | None]] = {o.spec.name: (o, head) for o, head in pairs}
    for choice in choices:
        output, head = by_name.get(choice.name) or (outputs.named(choice.name), None)
        by_name[choice.name] = output, chosen_head(choice, output.spec, inputs, head)
    judged = [(output, head) for output, head in by_name.values() if head is not None]
    return Judgement(outputs=tuple(output for output, _ in judged), heads=tuple(head for _, head in judged))
