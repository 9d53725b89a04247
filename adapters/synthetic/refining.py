"""Samples moved along a model's gradients until its inside looks as it did on its training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.synthetic import losses
from lampq.adapters.synthetic.drawing import Samples, class_deviations, runs
from lampq.adapters.synthetic.observation import Observation, Observer
from lampq.adapters.synthetic.recipe import SynthesisRecipe
from lampq.adapters.synthetic.spaces import Pictures, Space
from lampq.core.values.head import Head
from lampq.core.values.progress import Progress

Tensors = Mapping[str, torch.Tensor]
# What steps shrink to, as a part of the first.
_LAST_STEP = 0.02
# Weight of classes and patches where normalizations tell nothing.
_LITTLE = 0.05
# What gradients keep of a run, unless a single sample has more.
_PASS_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refiner:
    """Knows of a model what its gradients tell.

    Attributes:
        observer: Runs the model.
        spaces: What is made, by name of the input.
        fixed: Inputs that are not made but given, one row for each sample.
        head: The judged output that names one class for each sample, or None.
        recipe: The choices.
        run_size: Samples per run.
    """

    observer: Observer
    spaces: Mapping[str, Space]
    fixed: Mapping[str, np.ndarray]
    head: Head | None
    recipe: SynthesisRecipe
    run_size: int

    def terms(self, samples: Samples) -> tuple[str, ...]:
        """What the model tells of its training data, by a look at some samples; empty: nothing."""
        with torch.no_grad():
            count = len(next(iter(samples.values())))
            seen = self._observed(self._tensors(samples), np.arange(min(count, self.run_size)))
        terms = []
        if seen.normalized:
            terms.append(f"statistics of {len(seen.normalized)} normalizations")
        elif seen.attended:
            terms.append(f"patch similarities of {len(seen.attended)} attentions")
        if self._logits(seen) is not None:
            terms.append("classes")
        return tuple(terms)

    def deviations(self, samples: Samples, rows: np.ndarray) -> np.ndarray:
        """What every sample adds to moments and classes beyond what the training data had, shape (samples, F)."""
        with torch.no_grad():
            seen = self._observed(self._tensors(samples), rows)
        columns = []
        for item in seen.normalized:
            mean, square = losses.moments(item, over_samples=False)
            columns += [part.cpu().numpy() / part.shape[1] ** 0.5 for part in (mean, square - 1)]
        logits = self._logits(seen)
        if logits is not None:
            # Classes count as much as all that normalizations say.
            share = max(1, len(seen.normalized)) ** 0.5
            columns.append(share * class_deviations(logits.float().softmax(1).cpu().numpy()))
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 1))

    def refine(self, chosen: Samples, progress: Progress) -> Samples:
        """The samples after all steps, those of a run together."""
        parts = []
        count = len(next(iter(chosen.values())))
        batches = list(runs(count, self.run_size))
        for number, rows in enumerate(batches):

            def report(step: int, before: int = number * self.recipe.steps) -> None:
                progress("refining synthetic samples", before + step, len(batches) * self.recipe.steps)

            start = {name: samples[rows.start : rows.stop] for name, samples in chosen.items()}
            parts.append(self._refined(self._tensors(start), np.asarray(rows), report))
        return {name: np.concatenate([part[name] for part in parts]) for name in chosen}

    def affordable(self, samples: Samples) -> Refiner:
        """The same with runs of no more samples than memory holds, judged by a run of some samples."""
        rows = np.arange(self.run_size)
        size = self.observer.pass_bytes(self._fed(self._tensors(samples), rows)) / len(rows)
        return dataclasses.replace(self, run_size=max(1, min(self.recipe.batch, int(_PASS_BYTES // size))))

    def _observed(self, samples: Tensors, rows: np.ndarray) -> Observation:
        """What the model makes of samples; the last one is repeated where a run takes more."""
        return self.observer(self._fed(samples, rows)).first(len(rows))

    def _fed(self, samples: Tensors, rows: np.ndarray) -> Tensors:
        places = [*range(len(rows)), *[len(rows) - 1] * (self.run_size - len(rows))]
        inputs = {name: space.fed(samples[name])[places] for name, space in self.spaces.items()}
        fixed = self._tensors({name: array[rows][places] for name, array in self.fixed.items()})
        return {**inputs, **fixed}

    def _logits(self, seen: Observation) -> torch.Tensor | None:
        """Logits of the one class of each sample, shape (samples, C), or None."""
        logits = None if self.head is None else seen.outputs.get(self.head.name)
        return logits if logits is not None and logits.dim() == 2 else None

    def _refined(self, start: Tensors, rows: np.ndarray, report: Callable[[int], None]) -> Samples:
        """Samples of one run after all steps."""
        offsets = {name: torch.zeros_like(samples, requires_grad=True) for name, samples in start.items()}
        optimizer = torch.optim.Adam(offsets.values(), lr=self.recipe.rate)
        for step in range(self.recipe.steps):
            # A generator elsewhere that nobody finished may have left gradients switched off.
            with torch.enable_grad():
                samples = self._moved(start, offsets)
                loss = self._loss(self._observed(samples, rows), samples)
            if loss is None:
                break
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate * max(_LAST_STEP, 1 - step / self.recipe.steps)
            optimizer.step()
            report(step + 1)
        with torch.no_grad():
            return {name: samples.cpu().numpy() for name, samples in self._moved(start, offsets).items()}

    def _moved(self, start: Tensors, offsets: Tensors) -> dict[str, torch.Tensor]:
        smoothness = self.recipe.smoothness
        return {
            name: space.moved(start[name], offsets[name], smoothness) for name, space in self.spaces.items()
        }

    def _loss(self, seen: Observation, samples: Tensors) -> torch.Tensor | None:
        """All terms that the model has, weighted; None where it has none."""
        recipe = self.recipe
        terms: list[torch.Tensor] = []
        logits, little = self._logits(seen), 0.0 if seen.normalized else _LITTLE
        confidence = little if recipe.confidence is None else recipe.confidence
        entropy = little if recipe.entropy is None else recipe.entropy
        if recipe.statistics and seen.normalized:
            terms.append(recipe.statistics * losses.statistics_loss(seen.normalized))
        if confidence and logits is not None:
            terms.append(confidence * losses.confidence_loss(logits))
        if entropy and seen.attended:
            terms.append(entropy * losses.entropy_loss(seen.attended))
        if terms and recipe.variation:
            pictures = [samples[name] for name, space in self.spaces.items() if isinstance(space, Pictures)]
            terms += [recipe.variation * losses.variation_loss(each) for each in pictures]
        return torch.stack(terms).sum() if terms else None

    def _tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array).to(self.observer.device) for name, array in arrays.items()}
