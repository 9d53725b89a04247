"""Whether gradients tell what quantizing does: a few layers are quantized and run, and the two compared.

Both give rows for the same samples and directions, so chance plays no part: what differs is the second order that
gradients leave out, or gradients that are wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.gradient_rows import Loader, at_once, rows_by_runs, rows_of
from lampq.core.measuring.reference import Reference, evenly
from lampq.core.readouts.draws import Draws
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.messages import listed
from lampq.core.values.progress import Progress, quiet

# Samples and layers that are checked. On a CIFAR-10 ViT that is half a second of CPU.
_SAMPLES, _LAYERS = 32, 8
# The largest ratio of the two damages, either way, at a layer's middle width and at its narrowest. Measured there:
# 1.21 and, at 2 bits, 1.9.
_MIDDLE, _NARROWEST = 1.25, 2.5
# Damage below this, nats, is rounding of the outputs.
_NOISE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Damage by gradients over damage by runs, to second order, of the layers that were checked.

    Attributes:
        samples: Samples it was taken on.
        narrowest: Layer (by index) -> the ratio at its narrowest option.
        middle: Layer -> the ratio at the option in the middle.
    """

    samples: int
    narrowest: dict[int, float]
    middle: dict[int, float]

    @property
    def failing(self) -> tuple[int, ...]:
        """Layers, by index, whose gradients are not to be trusted."""
        return tuple(
            layer
            for layer in self.middle
            if _off(self.middle[layer], _MIDDLE) or _off(self.narrowest[layer], _NARROWEST)
        )

    @property
    def passes(self) -> bool:
        """Whether gradients are of use: those of most layers are right."""
        return 2 * len(self.failing) <= len(self.middle)

    def summary(self, layers: Sequence[Layer]) -> dict[str, Any]:
        """For the provenance: how many were checked, the range of ratios, and the layers that failed."""
        return {
            "samples": self.samples,
            "layers": len(self.middle),
            "narrowest": _range(self.narrowest.values()),
            "middle": _range(self.middle.values()),
            "measured_instead": [layers[index].name for index in self.failing],
        }

    def why_not(self, layers: Sequence[Layer]) -> str:
        """Which layers failed, for messages."""
        names = [layers[index].name for index in self.failing]
        return (
            f"gradients do not tell what quantizing does to {len(names)} of the {len(self.middle)} layers that were "
            f"checked ({listed(names)})"
        )


def check_gradients(
    candidates: Candidates,
    reference: Reference,
    draws: Draws,
    *,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Check:
    """Compare a few layers, spread over kinds and depth, and all of them if one of these fails.

    Args:
        candidates: What will be measured.
        reference: What the float model makes of the whole data set: shards make the same check.
        draws: Directions to take gradients in.
        journal: Keeps every run.
        progress: Told how far it is.

    Raises:
        NoGradientsError: The model has none; says why.
    """
    samples = reference.inputs.samples
    most = min(samples, _SAMPLES, at_once(reference, 0, draws.count))
    numbers = evenly(samples, most)
    part = reference.take(numbers)
    some = _spread(candidates.layers)
    draws, own = replace(draws, samples=numbers), journal.within("check")
    check = _compare(candidates, part, draws, some, own.within("some"), progress)
    if not check.failing or len(some) == len(candidates.layers):
        return check
    return _compare(candidates, part, draws, range(len(candidates.layers)), own.within("all"), progress)


def _compare(
    candidates: Candidates,
    reference: Reference,
    draws: Draws,
    layers: Iterable[int],
    journal: Journal,
    progress: Progress,
) -> Check:
    columns = {index: _ends(candidates.columns(index)) for index in layers}
    step = _as_check(progress)
    rows = rows_of(candidates, reference, draws, Loader(candidates, columns), journal, step)
    vectors = list(reference.readout.directions(reference.outputs, draws))
    runs = rows_by_runs(candidates, reference, vectors, columns, journal, step)
    ratios = {cell: _ratio(rows[:, :, cell[0], cell[1]], values) for cell, values in runs.items()}
    return Check(
        samples=reference.inputs.samples,
        narrowest={index: ratios[index, some[0]] for index, some in columns.items()},
        middle={index: ratios[index, some[-1]] for index, some in columns.items()},
    )


def _ratio(rows: np.ndarray, runs: np.ndarray) -> float:
    """Damage by gradients over damage by runs; 1 where they differ by rounding."""
    one, other = (float(np.square(r, dtype=np.float64).sum() / (2 * len(r))) for r in (rows, runs))
    return 1.0 if abs(one - other) <= _NOISE else (one + _NOISE) / (other + _NOISE)


def _off(ratio: float, most: float) -> bool:
    return not 1 / most <= ratio <= most


def _ends(columns: Sequence[int]) -> list[int]:
    """The narrowest option and the one in the middle."""
    return sorted({columns[0], columns[len(columns) // 2]})


def _spread(layers: Sequence[Layer]) -> list[int]:
    """Some layers of every kind, the kinds at different depths, then the first and the last."""
    kinds = list(dict.fromkeys(layer.kind for layer in layers))
    chosen = []
    for number, kind in enumerate(kinds):
        members = [index for index, layer in enumerate(layers) if layer.kind == kind]
        chosen.append(members[round(number * (len(members) - 1) / max(len(kinds) - 1, 1))])
    more = np.linspace(0, len(layers) - 1, _LAYERS).round().astype(int).tolist()
    return sorted(list(dict.fromkeys([*chosen, *more]))[:_LAYERS])


def _range(ratios: Iterable[float]) -> list[float]:
    values = list(ratios)
    return [round(min(values), 4), round(max(values), 4)]


def _as_check(progress: Progress) -> Progress:
    def step(_: str, done: int, total: int) -> None:
        progress("checking gradients", done, total)

    return step
