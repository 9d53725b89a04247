"""Damage of single layers and how they act together: by gradients where they can be trusted, else by runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.gradient_check import Check, check_gradients
from lampq.core.measuring.gradient_rows import directions_for, measure_gradients, output_bytes
from lampq.core.measuring.measure import Damage, measure_damage, scattering
from lampq.core.measuring.pairs import measure_pairs
from lampq.core.measuring.reference import Reference, evenly
from lampq.core.readouts.draws import Draws
from lampq.core.values.errors import AdapterError, NoGradientsError
from lampq.core.values.journal import Journal
from lampq.core.values.measure_kinds import AUTO, DIFFERENCES, GRADIENTS
from lampq.core.values.measurement import Measurement
from lampq.core.values.memory import give_back
from lampq.core.values.messages import listed, reason
from lampq.core.values.progress import Progress

# Outputs of one sample; a detector with half a million numbers took 2.7 GB by gradients, 0.9 GB by differences.
_LARGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredDamage:
    """Damage, and where it comes from.

    Attributes:
        damage: Of every layer and option.
        kind: `gradients` or `differences`.
        details: For the provenance: of the gradients and their check, or why there are none.
        pairs: For the provenance: which pairs of widths were run, where differences were taken of pairs.
    """

    damage: Damage
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
    pairs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def joint(self) -> np.ndarray | None:
        """Second-order damage of every layer and option, nats, shape (L, J), where gradients gave it."""
        return self.damage.kl if self.kind == GRADIENTS else None

    @property
    def notes(self) -> tuple[str, ...]:
        """For plans: what was measured otherwise than by gradients where these were wanted, and why."""
        if "note" in self.details:
            return (str(self.details["note"]),)
        instead = self.details.get("check", {}).get("measured_instead")
        if not instead:
            return ()
        were = "was" if len(instead) == 1 else "were"
        return (
            f"gradients do not tell what quantizing does to {listed(instead)}, which {were} quantized and run instead",
        )


def measured_damage(
    candidates: Candidates,
    measurement: Measurement,
    reference: Reference,
    whole: Reference,
    numbers: np.ndarray | None,
    *,
    most: int | None = None,
    journal: Journal,
    progress: Progress,
) -> MeasuredDamage:
    """Measure some samples of a data set, in the way that is asked for or, for `auto`, that can be.

    Args:
        candidates: What to measure.
        measurement: How.
        reference: What the float model makes of the samples.
        whole: The same of the whole data set; what is chosen by it is the same for all its shards.
        numbers: Number of each sample in the whole data set; None: all, in order.
        most: Samples to take gradients of, evenly over all; None: all.
        journal: Keeps what is measured.
        progress: Told how far it is.

    Raises:
        NoGradientsError: Gradients are asked for, and the model has none, or they are not to be trusted.
    """
    details: Mapping[str, Any] = {}
    if measurement.measure != DIFFERENCES:
        draws = replace(directions_for(whole, measurement.seed), samples=numbers)
        try:
            if measurement.measure == AUTO:
                _refuse_large(whole)
            check = _checked(candidates, draws, whole, journal, progress)
            return _by_gradients(candidates, draws, reference, check, most, journal, progress)
        except AdapterError as err:
            if measurement.measure == GRADIENTS:
                raise NoGradientsError(
                    f"{candidates.model.path.name} cannot be measured by gradients ({reason(err)}); take "
                    f"--measure differences"
                ) from err
            details = {"note": f"no gradients ({reason(err)}): layers are quantized one at a time"}
    damage, pairs = _by_differences(candidates, reference, measurement.tolerance, journal, progress)
    return MeasuredDamage(damage=damage, kind=DIFFERENCES, details=details, pairs=pairs)


def _refuse_large(reference: Reference) -> None:
    """Leave large outputs to forward passes: gradients hold what leads to them as well, of some samples together.

    Raises:
        NoGradientsError: They are large.
    """
    size = output_bytes(reference)
    if size > _LARGE_BYTES:
        raise NoGradientsError(f"they would take much memory with outputs of {size / 1e6:.1f} MB a sample")


def _checked(
    candidates: Candidates, draws: Draws, whole: Reference, journal: Journal, progress: Progress
) -> Check:
    """The check of gradients, passed.

    Raises:
        NoGradientsError: There are none, or it is not.
    """
    if candidates.products:
        raise NoGradientsError("factors of products are measured by differences alone")
    check = check_gradients(candidates, whole, draws, journal=journal, progress=progress)
    give_back()
    if not check.passes:
        raise NoGradientsError(check.why_not(candidates.layers))
    return check


def _by_gradients(
    candidates: Candidates,
    draws: Draws,
    reference: Reference,
    check: Check,
    most: int | None,
    journal: Journal,
    progress: Progress,
) -> MeasuredDamage:
    samples = reference.inputs.samples
    some = evenly(samples, most or samples)
    if len(some) < samples:
        numbers = some if draws.samples is None else draws.samples[some]
        reference, draws = reference.take(some), replace(draws, samples=numbers)
    damage = measure_gradients(
        candidates, reference, draws, run=check.failing, journal=journal, progress=progress
    )
    give_back()
    details = {
        "kl": "second order",
        "directions": draws.count,
        "check": check.summary(candidates.layers),
        **({"samples": len(some)} if len(some) < samples else {}),
    }
    damage = scattering(damage, len(some), samples)
    return MeasuredDamage(damage=damage, kind=GRADIENTS, details=details)


def _by_differences(
    candidates: Candidates, reference: Reference, tolerance: float, journal: Journal, progress: Progress
) -> tuple[Damage, Mapping[str, Any]]:
    if candidates.rules is None:
        damage = measure_damage(
            candidates.model,
            candidates.layers,
            candidates.options,
            reference.inputs,
            available=candidates.available,
            reference=reference,
            journal=journal,
            progress=progress,
        )
        return damage, {}
    pairs = measure_pairs(candidates, reference, tolerance=tolerance, journal=journal, progress=progress)
    return pairs.damage, pairs.summary()
