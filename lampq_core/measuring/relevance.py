"""What share of the outputs passes through each layer, and how far quantizing it moves its own output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lampq.core.measuring.encoding import encoder
from lampq.core.measuring.model import Model
from lampq.core.measuring.moments import input_moments
from lampq.core.measuring.setting import profile_rule
from lampq.core.quantizing.quantizer import as_rows
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.tables import LAYERS, MEAN, OPTIONS, TableKind

RELEVANCE, ERROR, POWER = "relevance", "layer_error", "layer_power"
"""Tables: shares of the outputs' relevance, squared errors of layers' outputs, and squares of these outputs."""
_KINDS = {
    RELEVANCE: TableKind(axes=(LAYERS,), merge=MEAN, unit="share of the outputs", least=0),
    ERROR: TableKind(axes=(LAYERS, OPTIONS), merge=MEAN, unit="squared output", least=0),
    POWER: TableKind(axes=(LAYERS,), merge=MEAN, unit="squared output", least=0),
}


@runtime_checkable
class Relevant(Protocol):
    """What a model has beside the protocol `Model` where relevance can be propagated through it."""

    def relevance(self, batch: Batch, *, progress: Progress) -> Mapping[str, float]:
        """Mean over samples of the magnitude of the relevance that layers hand to their inputs, by layer name.

        Raises:
            AdapterError: It cannot; says why.
        """


def with_relevance(model: Model, profile: Profile, batch: Batch, progress: Progress = quiet) -> Profile:
    """The profile with the three tables; as it is, where it has them.

    Raises:
        RecordError: Relevance cannot be propagated through models of this format.
        AdapterError: It cannot through this model; says why.
    """
    if all(name in profile.tables for name in _KINDS):
        return profile
    if not isinstance(model, Relevant):
        raise RecordError(
            f"{model.path.name}: relevance goes back through the operators of a model in PyTorch, and {model.format} "
            "models have no such form here; use another mode"
        )
    relevance = model.relevance(batch, progress=progress)
    shares = [relevance.get(layer.name, 0.0) for layer in profile.layers]
    error, power = output_errors(model, profile, batch)
    for name, array in {RELEVANCE: np.array(shares), ERROR: error, POWER: power}.items():
        profile = profile.with_table(name, array, _KINDS[name])
    return profile


def relative_output_error(profile: Profile) -> np.ndarray:
    """||W_hat X_hat - W X||^2 / ||W X||^2 of every layer and option of a profile with the tables, shape (L, J)."""
    power = profile.tables[POWER].array[:, None]
    return np.divide(
        profile.tables[ERROR].array, power, out=np.zeros_like(profile.tables[ERROR].array), where=power > 0
    )


def output_errors(model: Model, profile: Profile, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of layers' outputs at every option, and the squares of the outputs, per use and channel.

    Errors of weights and inputs are taken to be independent, and add up. Layers whose inputs do not tell which values a
    weight meets (`core.measuring.moments`) have the error of their weights, as if inputs were white.

    Returns:
        Float64, shapes (L, J) and (L,).
    """
    moments = model.coding.moments or input_moments(model, profile.layers, batch)
    error = np.zeros((len(profile.layers), len(profile.options)))
    power = np.zeros(len(profile.layers))
    for index, layer in enumerate(profile.layers):
        rows, moment = as_rows(model.weight(layer.name), layer.channel_axis), moments.get(layer.name)
        encode = encoder(model, layer.name, layer.channel_axis, sorted(set(profile.weight_bits.tolist())))
        power[index] = _square(rows, moment)
        known: dict[tuple[int, int], float] = {}
        for column in np.flatnonzero(profile.available[index]).tolist():
            weights = profile.options[column].weights
            if weights not in known:
                known[weights] = _square(encode(*weights).dequantized().reshape(rows.shape) - rows, moment)
            error[index, column] = known[weights]
    return error + _input_errors(model, profile, batch), power


def _square(rows: np.ndarray, moment: np.ndarray | None) -> float:
    """E ||rows x||^2 over the channels, by the second moment of x; white where there is none."""
    if moment is None:
        return float(np.square(rows, dtype=np.float64).sum()) / len(rows)
    groups = moment if moment.ndim == 3 else moment[None]
    parts = rows.reshape(len(groups), -1, rows.shape[1])
    return float(np.einsum("gcn,gcn->", parts @ groups, parts, dtype=np.float64)) / len(rows)


def _input_errors(model: Model, profile: Profile, batch: Batch) -> np.ndarray:
    """E ||W (X_hat - X)||^2 per use and channel, shape (L, J); nothing where inputs stay float."""
    error = np.zeros((len(profile.layers), len(profile.options)))
    if all(option.activation_bits is None for option in profile.options):
        return error
    position = {layer.name: index for index, layer in enumerate(profile.layers)}
    counts = np.zeros(len(profile.layers))
    for name, inputs, _ in model.taps(batch):
        index = position.get(name)
        if index is None or not _is_matrix(profile.layers[index], inputs):
            continue
        rows = as_rows(model.weight(name), profile.layers[index].channel_axis)
        counts[index] += inputs.size // inputs.shape[-1]
        error[index] += _rounded_inputs(profile, index, inputs, rows)
    return error / np.maximum(counts, 1)[:, None]


def _is_matrix(layer: Layer, inputs: np.ndarray) -> bool:
    return len(layer.shape) == 2 and inputs.shape[-1] * layer.channels == layer.size


def _rounded_inputs(profile: Profile, index: int, inputs: np.ndarray, rows: np.ndarray) -> Sequence[float]:
    """Sum of ||W (X_hat - X)||^2 per channel at every option of a layer."""
    known: dict[int | None, float] = {None: 0.0}
    for column, option in enumerate(profile.options):
        rule = profile_rule(profile, index, column)
        if option.activation_bits not in known and rule is not None:
            change = (rule.apply(inputs) - inputs).reshape(-1, inputs.shape[-1]) @ rows.T
            known[option.activation_bits] = float(np.square(change, dtype=np.float64).sum()) / len(rows)
    return [known.get(option.activation_bits, 0.0) for option in profile.options]
