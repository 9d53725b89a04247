"""Values of sites on some samples, and the gradients that tell what rounding them does to the outputs."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from lampq.adapters.torch.replay import Pass, passes
from lampq.adapters.torch.rounding import Site
from lampq.adapters.torch.variant import Variant
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.treatments.roles import role_of
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_rule import SiteAxes
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError


def site_samples(
    model: Variant,
    batch: Batch,
    readout: Readout,
    names: Collection[str],
    *,
    draws: Draws | None = None,
    batch_size: int = 16,
) -> dict[str, Seen]:
    """What is seen at sites, by name.

    Args:
        model: The model.
        batch: Inputs of one shape, samples first.
        readout: What the outputs mean.
        names: Sites, layers' inputs by their parameter.
        draws: Directions to take gradients along; None takes those that carry most.
        batch_size: Samples per pass.

    Raises:
        RecordError: Data does not reach a site, or its values are not finite; names it.
    """
    parts: dict[str, list[_Part]] = {name: [] for name in names}
    draws, done = (draws or Draws(labels="principal", count=4)).of(batch.samples), 0
    for one in passes(model, batch, batch_size=batch_size, activations=False, sites=names):
        own = draws.part(slice(done, done + one.count))
        done += one.count
        vectors = list(readout.directions(one.reference(readout), own))
        for name, part in _of_pass(one, vectors).items():
            parts[name].append(part)
    return {name: _joined(name, some) for name, some in parts.items()}


class _Part:
    """Values and gradients of one pass."""

    def __init__(self, site: Site, values: torch.Tensor) -> None:
        self.site, self.values = site, values
        self.gradients: list[torch.Tensor] = []


def _of_pass(one: Pass, vectors: list[Batch]) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}

    def keep(site: Site, grad: torch.Tensor) -> None:
        part = parts.setdefault(site.name, _Part(site, _by_sample(site, one.values[site.name], one.count)))
        part.gradients.append(_by_sample(site, grad / one.scale, one.count))

    one.backward(vectors, lambda name, uses: None, on_site=keep)
    return parts


def _by_sample(site: Site, values: torch.Tensor, count: int) -> torch.Tensor:
    """Values of the samples that count, samples first; heads stay beside them."""
    values = values.detach().float()
    if "@" in site.name:
        return values[: count * site.axes.rows]
    return values[:count] if site.axes.rows == 1 else site.axes.split(values, torch)[:count]


def _joined(name: str, parts: list[_Part]) -> Seen:
    if not parts:
        raise RecordError(f"site {name}: the outputs do not depend on it, or no data reaches it")
    site = parts[0].site
    axes = site.axes if "@" in name or site.axes.rows == 1 else SiteAxes(sums=site.axes.sums)
    values = torch.cat([part.values for part in parts]).cpu().numpy()
    rows = zip(*(part.gradients for part in parts), strict=True)
    gradients = np.stack([torch.cat(list(row)).cpu().numpy() for row in rows])
    return Seen(
        name=name,
        role=role_of(name),
        values=values,
        samples=len(values) // axes.rows if "@" in name else len(values),
        gradients=gradients,
        axes=axes,
    )
