"""All judged outputs of a model at once: their damage in nats, its metric, and directions to take gradients in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.directions import directions, lone_classes
from lampq.core.readouts.doubts import doubt_of
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.fitting import fit_role, infinite_note, unusable
from lampq.core.readouts.joint_embedding import JointEmbedding
from lampq.core.readouts.parts import check_samples, output_of, parts_of
from lampq.core.readouts.role import Role
from lampq.core.readouts.signature import decisions, signature
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import Head
from lampq.core.values.messages import listed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readout:
    """The judged outputs of a model. Damage of a plan is the weighted sum of that of its heads.

    Everything called a reference or centre is what `reference` gives: outputs together with the masks that heads name.

    Attributes:
        heads: Judged heads, in the order of the model's outputs.
        roles: Role of each head, fitted to the float outputs.
        notes: What was left out, is infinite, or looks like another role, and what that means.
    """

    heads: tuple[Head, ...]
    roles: tuple[Role, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, heads: Sequence[Head], reference: Batch, inputs: Batch | None) -> Readout:
        """Learn from the float outputs in what units each head moves.

        A head that is constant, or not finite, on these samples is left out with a note.

        Args:
            heads: All heads of the model, judged or not.
            reference: Float outputs, canonical, at least those of the judged heads.
            inputs: Where masks are among the inputs.

        Raises:
            RecordError: No head is left, a head cannot have its role, or a mask is missing or of another shape.
        """
        judged = tuple(head for head in heads if head.judged)
        if not judged:
            raise RecordError("no output is judged, so nothing can be measured; name one as NAME=ROLE")
        outputs = _with_masks(judged, reference, inputs)
        fitted = [(head, fit_role(head, outputs)) for head in judged]
        dropped = [f"output {head.name} is {role}" for head, role in fitted if isinstance(role, str)]
        if len(dropped) == len(judged):
            raise RecordError(f"{listed(dropped, separator='; ')}: no damage can be measured")
        heads = tuple(head for head, role in fitted if not isinstance(role, str))
        said = [say(head, outputs) for say in (infinite_note, doubt_of) for head in heads]
        return cls(
            heads=heads,
            roles=tuple(role for _, role in fitted if not isinstance(role, str)),
            notes=(*(f"{note}; it is not judged" for note in dropped), *filter(None, said)),
        )

    def reference(self, outputs: Batch, inputs: Batch | None) -> Batch:
        """The judged outputs, and the masks of their samples under the masks' names.

        Raises:
            RecordError: An output or mask is missing.
        """
        return _with_masks(self.heads, outputs, inputs)

    def check(self, outputs: Batch, whose: str) -> Batch:
        """The outputs, if damage can be taken of them.

        Raises:
            RecordError: A judged output is NaN or infinite; says whose, which, and the first sample. Infinite logits
                are fine where they stand for a probability of 0 or 1.
        """
        start = 0
        for group, size in zip(outputs.groups, outputs.sizes, strict=True):
            for head in self.heads:
                bad = unusable(head, output_of(group, head))
                if bad.any():
                    raise RecordError(
                        f"{whose} gives NaN or infinite values in output {head.name} "
                        f"(first for sample {start + int(bad.argmax())})"
                    )
            start += size
        return outputs

    def damage(self, reference: Batch, outputs: Batch) -> np.ndarray:
        """Nats per sample, float64, shape (S,), >= 0.

        Raises:
            RecordError: The outputs do not fit the reference.
        """
        check_samples(reference, outputs)
        total = np.zeros(reference.samples)
        starts = np.cumsum((0, *reference.sizes))
        for part in parts_of(self.heads, self.roles, reference):
            nats = part.role.damage(part.of(reference), part.of(outputs), part.mask)
            start = starts[part.group] + part.samples.start
            total[start : start + len(nats)] += part.head.weight * nats
        return total

    def embedding(self, centre: Batch) -> JointEmbedding:
        """A linear map of differences whose squares add up to the damage around a centre, to second order.

        |embedding(centre)(difference)|^2 is the mean over samples of the weighted sum of dz^T M dz / 2.
        """
        return JointEmbedding(self.heads, self.roles, centre)

    def linear(self, reference: Batch, centre: Batch) -> Callable[[Batch], float]:
        """First-order change of the mean damage, for differences from a centre.

        Returns:
            From a difference to nats: the mean over samples of <slope at the centre, difference>.

        Raises:
            RecordError: The centre does not fit the reference.
        """
        check_samples(reference, centre)
        slopes = []
        for part in parts_of(self.heads, self.roles, reference):
            slope = part.role.slope(part.of(reference), part.of(centre), part.mask)
            slopes.append((part, (slope * (part.head.weight / reference.samples)).ravel()))

        def change(difference: Batch) -> float:
            check_samples(reference, difference)
            return sum(
                float(np.einsum("i,i->", slope, part.of(difference).ravel())) for part, slope in slopes
            )

        return change

    def directions(self, reference: Batch, draws: Draws) -> Iterator[Batch]:
        """Vectors v of all heads, float64: the sum of ||J^T v||^2 over them estimates tr(F) of each sample.

        See `core.readouts.directions`.
        """
        return directions(self.heads, self.roles, reference, draws)

    def is_lone_classes(self, reference: Batch) -> bool:
        """Whether one class of the whole sample is all that is judged: then few directions hold all (`principal`)."""
        return lone_classes(self.heads, reference)

    def check_labels(self, reference: Batch) -> None:
        """See that labels of the data say what the outputs should be: a class for each sample, and nothing else.

        Raises:
            AdapterError: They do not; names the outputs.
        """
        if not lone_classes(self.heads, reference):
            names = listed([f"{head.name} ({head.role})" for head in self.heads])
            raise AdapterError(
                f"the empirical Fisher information needs one output that names a class for each sample; judged are "
                f"{names}; take the true one"
            )

    def decisions(self, outputs: Batch) -> dict[str, np.ndarray]:
        """What a user would read off each head that decides something; see `core.readouts.signature`."""
        return decisions(self.heads, self.roles, outputs)

    def signature(self, outputs: Batch) -> np.ndarray:
        """Eight numbers per sample that tell data sets apart, float32, shape (S, 8)."""
        return signature(self.heads, outputs)


def _with_masks(heads: Sequence[Head], outputs: Batch, inputs: Batch | None) -> Batch:
    judged = outputs.only([head.name for head in heads])
    masks = list(dict.fromkeys(head.mask for head in heads if head.mask))
    if not masks:
        return judged
    missing = [mask for mask in masks if inputs is None or mask not in inputs.names]
    if inputs is None or missing:
        raise RecordError(f"positions are counted by the input {missing[0]!r}, which is missing")
    for mask in masks:
        if mask in judged.names:
            raise RecordError(f"{mask!r} is the name of an output and of the input that masks it; rename one")
    return judged.beside(inputs.only(masks))
