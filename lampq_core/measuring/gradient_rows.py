"""Damage of all layers and options, and how they act together, from a few backward passes.

For a direction v in output space with E[v v^T] = M, the metric of the outputs, one backward pass of v^T z gives the
first-order change of v^T z when layer i takes option j, for all i and j at once. These rows, one per sample and
direction, are the factor A of the interactions Q = A^T A / 2 (`interaction`); no layer is ever quantized in a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lampq.core.measuring.candidates import Candidates, Roundings
from lampq.core.measuring.gram_sums import GramSums
from lampq.core.measuring.measure import Damage
from lampq.core.measuring.reference import Reference
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.quantizing.shelved_codes import ShelvedCodes
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, NoGradientsError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.progress import Progress, quiet, rest

# Directions of one output of classes, which carry nearly all (`readouts.principal`). On a CIFAR-10 ViT and 520 images
# plans come out as with all nine, at less than half the time; with four random ones they lose 0 to 4 %.
_PRINCIPAL = 3
# Other outputs have random directions, so many that there are thousands of rows, within these numbers a sample.
_ROWS, _FEWEST, _MOST = 2048, 4, 16
# Rows and directions that are in memory at a time.
_SLICE_BYTES = 1 << 27
# Codes of a group of layers that are in memory; others are read from disk for every pass and direction.
_CODES_BYTES = 1 << 28


@runtime_checkable
class GradientRows(Protocol):
    """What a model has beside the protocol `Model` where gradients of single samples can be taken."""

    def gradient_rows(
        self,
        batch: Batch,
        candidates: RoundedLayers,
        readout: Readout,
        draws: Draws,
        *,
        progress: Progress = quiet,
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """First-order changes of v^T z when one layer is rounded, a few samples at a time.

        Args:
            batch: Inputs, samples first.
            candidates: Layer -> its weights at W widths and the rules of its input at A widths.
            readout: What the outputs mean.
            draws: Which directions v.
            progress: Told how far it is.

        Yields:
            Layer -> float32, shape (samples, directions, W, A), samples in order.

        Raises:
            NoGradientsError: This model has none after all; says why.
        """


def directions_for(reference: Reference, seed: int) -> Draws:
    """Directions to take gradients in, as many as a data set needs; shards take those of the whole."""
    count = min(max(-(-_ROWS // reference.inputs.samples), _FEWEST), _MOST)
    lone = reference.readout.is_lone_classes(reference.outputs)
    return Draws(labels="principal", count=_PRINCIPAL if lone else count, seed=seed)


def measure_gradients(
    candidates: Candidates,
    reference: Reference,
    draws: Draws,
    *,
    run: Sequence[int] = (),
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Damage:
    """Damage of quantizing one layer at a time, to second order, and the interactions of all.

    Args:
        candidates: What to measure; the model has `gradient_rows`.
        reference: What the float model makes of S samples.
        draws: Directions to take gradients in.
        run: Layers (by index) whose gradients are not trusted: they are quantized and run instead, and what the
            outputs did is projected on the same directions, so that it fits the rows of the others.
        journal: Keeps the rows of a few samples at a time.
        progress: Told how far it is.

    Raises:
        NoGradientsError: The model has none; says why.
        AdapterError: Gradients are not finite; names the layer.
    """
    draws = draws.of(reference.inputs.samples)
    layers, options = candidates.table
    sums, loader = GramSums(layers * options), Loader(candidates, candidates.every())
    instead = {index: candidates.columns(index) for index in run}
    places = _slices(reference, layers * options, draws.count)
    for done, place in enumerate(places):
        part, own = reference.take(place), draws.part(place)

        def step(what: str, now: int, total: int, done: int = done) -> None:
            progress(what, done * total + now, len(places) * total)

        kept = journal.within(f"rows {done}")
        rows = rows_of(candidates, part, own, loader, kept, step)
        if instead:
            vectors = list(part.readout.directions(part.outputs, own))
            runs = rows_by_runs(candidates, part, vectors, instead, kept, progress)
            for (layer, column), moved in runs.items():
                rows[:, :, layer, column] = moved
        sums.add(rows.reshape(*rows.shape[:2], -1))
    kl = np.where(candidates.available, sums.own.reshape(candidates.table), 0.0)
    gram, square = sums.gram, sums.square
    shape = (*candidates.table, *candidates.table)
    return Damage(
        weight_error=loader.error,
        steps=loader.steps,
        kl=kl,
        gram=None if gram is None else gram.reshape(shape),
        gram_square=None if square is None else square.reshape(shape),
    )


class Loader:
    """Roundings of one group of layers after the other; those of a lone group are made once.

    Args:
        candidates: What to load from.
        columns: Layer (by index) -> options.

    Attributes:
        error: ||W_hat - W||^2 of what was loaded, float64, shape (L, J).
        steps: Distance of neighbouring integers, the same.
    """

    def __init__(self, candidates: Candidates, columns: Mapping[int, Sequence[int]]) -> None:
        self._candidates = candidates
        self._groups = candidates.groups(columns)
        self._lone: dict[int, Roundings] | None = None
        self.error = np.zeros(candidates.table)
        self.steps = np.zeros(candidates.table, dtype=np.int64)

    def __iter__(self) -> Iterator[dict[int, Roundings]]:
        """Layer -> its roundings, group by group."""
        for group in self._groups:
            yield self._lone or self._loaded(group)

    def _loaded(self, group: Mapping[int, Sequence[int]]) -> dict[int, Roundings]:
        loaded, shelf, room = {}, ShelvedCodes(), _CODES_BYTES
        for index, columns in group.items():
            roundings = self._candidates.roundings(index, columns)
            for column, (weight, _) in roundings.place.items():
                self.error[index, column] = roundings.squared_error[weight]
                self.steps[index, column] = roundings.steps[weight]
            room -= roundings.weights.size_bytes
            loaded[index] = roundings if room >= 0 else roundings.shelved(shelf, index)
        if len(self._groups) == 1:
            self._lone = loaded
        return loaded


def rows_of(
    candidates: Candidates,
    reference: Reference,
    draws: Draws,
    loader: Loader,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> np.ndarray:
    """Rows of the layers that are loaded, zero for all others, float32, shape (samples, directions, L, J).

    Raises:
        NoGradientsError: The model has none; says why.
        AdapterError: Gradients are not finite; names the layer.
    """
    model = candidates.model
    if not isinstance(model, GradientRows):
        raise NoGradientsError(f"{model.format} models have none here")
    samples = reference.inputs.samples
    rows = np.zeros((samples, 0, *candidates.table), dtype=np.float32)
    for number, group in enumerate(loader):
        names, own = {index: candidates.layers[index].name for index in group}, journal.within(f"{number}")
        shape = (None, None, len(group), candidates.table[1])
        done = 0
        while done < samples and (kept := own.get(f"{done}", {"rows": shape})) is not None:
            rows = _with_room(rows, kept["rows"].shape[1])
            rows[done : done + len(kept["rows"]), :, list(group)] = kept["rows"]
            done += max(1, len(kept["rows"]))
        if done >= samples:
            continue
        blocks = model.gradient_rows(
            reference.inputs.take(range(done, samples)) if done else reference.inputs,
            {names[index]: (one.weights, one.rules) for index, one in group.items()},
            reference.readout,
            draws.of(samples).part(slice(done, samples)),
            progress=progress,
        )
        for block in blocks:
            for index, roundings in group.items():
                values = block[names[index]]
                if not np.isfinite(values).all():
                    raise AdapterError(
                        f"the gradients of layer {names[index]} are not finite; check the data, or take "
                        f"--measure differences"
                    )
                rows = _with_room(rows, values.shape[1])
                for column, (weight, rule) in roundings.place.items():
                    rows[done : done + len(values), :, index, column] = values[:, :, weight, rule]
            own.put(f"{done}", rows=rows[done : done + len(values), :, list(group)])
            done += len(values)
    return rows


def _with_room(rows: np.ndarray, directions: int) -> np.ndarray:
    """The rows, or empty ones for another number of directions, which is known when the first have come."""
    if rows.shape[1] == directions:
        return rows
    return np.zeros((len(rows), directions, *rows.shape[2:]), dtype=np.float32)


def rows_by_runs(
    candidates: Candidates,
    reference: Reference,
    vectors: Sequence[Batch],
    columns: Mapping[int, Sequence[int]],
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> dict[tuple[int, int], np.ndarray]:
    """The same rows from quantizing layers and running them: <v, dz> instead of its first order.

    Args:
        candidates: What to round to.
        reference: What the float model makes of S samples.
        vectors: Directions v of these samples.
        columns: Layer (by index) -> options to run.
        journal: Keeps every run.
        progress: Told after every run.

    Returns:
        (Layer, option) -> float64, shape (S, directions).
    """
    model, layers = candidates.model, candidates.layers
    position = {layers[index].name: index for index in columns}
    shape = (reference.inputs.samples, len(vectors))
    rows: dict[tuple[int, int], np.ndarray] = {}

    def remembered(index: int, column: int) -> bool:
        kept = journal.get(f"run {index} {column}", {"rows": shape})
        if kept is not None:
            rows[index, column] = kept["rows"]
        return kept is not None

    def settings() -> Iterator[tuple[str, int, object]]:
        for index in sorted(columns):
            left = [column for column in columns[index] if not remembered(index, column)]
            for column, setting in candidates.settings(index, left):
                yield layers[index].name, column, setting

    total = sum(len(some) * rest(index, len(layers)) for index, some in columns.items())
    done = 0
    for name, column, outputs in model.sweep(reference.inputs, settings()):
        reference.checked(outputs, f"the model with layer {name} quantized")
        index = position[name]
        rows[index, column] = _along(vectors, outputs.minus(reference.outputs))
        journal.put(f"run {index} {column}", rows=rows[index, column])
        done += rest(index, len(layers))
        progress("measuring layers", done, total)
    return rows


def _along(vectors: Sequence[Batch], difference: Batch) -> np.ndarray:
    """<v, dz> of every sample and direction, float64, shape (S, directions)."""
    columns = []
    for vector in vectors:
        parts = [
            sum(
                np.einsum("sn,sn->s", array.reshape(len(array), -1), moved[name].reshape(len(array), -1))
                for name, array in group.items()
            )
            for group, moved in zip(vector.groups, difference.groups, strict=True)
        ]
        columns.append(np.concatenate(parts))
    return np.stack(columns, axis=1)


def _slices(reference: Reference, columns: int, draws: int) -> list[np.ndarray]:
    """Samples, by index, whose rows and directions fit in memory together."""
    samples, size = reference.inputs.samples, at_once(reference, columns, draws)
    return [np.arange(start, min(start + size, samples)) for start in range(0, samples, size)]


def at_once(reference: Reference, columns: int, draws: int) -> int:
    """How many samples' rows and directions fit in memory together, at least one."""
    needed = draws * (4 * columns + 2 * output_bytes(reference))
    return max(1, _SLICE_BYTES // max(needed, 1))


def output_bytes(reference: Reference) -> int:
    """Bytes of the outputs of one sample, on average."""
    total = sum(array.nbytes for group in reference.outputs.groups for array in group.values())
    return total // max(reference.inputs.samples, 1)
