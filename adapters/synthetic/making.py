"""Which samples a model can be given that has no data, and how they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.adapters.data.constants import constant_inputs
from lampq.adapters.data.dataset import Dataset
from lampq.adapters.data.named_arrays import takes
from lampq.adapters.data.override import preprocess_for
from lampq.adapters.data.preprocess import Preprocess
from lampq.adapters.data.reading import from_arrays
from lampq.adapters.synthetic import cache
from lampq.adapters.synthetic.drawing import Samples, class_deviations, draw, select_drawn
from lampq.adapters.synthetic.observation import Observable
from lampq.adapters.synthetic.recipe import SynthesisRecipe
from lampq.adapters.synthetic.shapes import definite, lengths_of
from lampq.adapters.synthetic.spaces import Pictures, Space, Values
from lampq.adapters.synthetic.texts import make_texts, token_inputs
from lampq.core.measuring.model import Model
from lampq.core.readouts.softmax import log_softmax
from lampq.core.values.errors import AdapterError, NoGradientsError, RecordError
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.input_spec import FLOATING, InputSpec
from lampq.core.values.messages import listed
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from lampq.adapters.synthetic.refining import Refiner

SOURCE = "synthetic"
"""What names such data on the command line, and what profiles call their kind and source."""
# Of all that the recipe does not say: another one makes other samples.
_VERSION = 1
# Statistics of fewer samples together are not those of the training data.
_FEWEST_TOGETHER = 8


def synthetic(
    model: Model,
    samples: int = 256,
    *,
    seed: int = 0,
    preprocess: Preprocess | str | None = None,
    constants: Mapping[str, Any] | None = None,
    recipe: SynthesisRecipe | None = None,
    cache_folder: str | Path | None = None,
    progress: Progress = quiet,
) -> Dataset:
    """Calibration samples made from a model alone.

    Texts are sampled from decoders, and are words of the vocabulary for other models. Pictures are drawn as scenes of
    occluding shapes, selected so that what normalizations and classes say of them together is what the training data
    must have given, and refined by gradients of the same. Where the model has no gradients the selection goes by
    classes alone; inputs that are no pictures begin as noise. The notes of what comes back say what was possible.

    Args:
        model: The float model.
        samples: How many.
        seed: Any integer from 0; the same samples come of it again, on one thread to the bit.
        preprocess: From pixels to the model's input, a record or the name of a preset; None takes what is said beside
            the model, else pixels in [0, 1].
        constants: Inputs that are the same for every sample, by name.
        recipe: The choices of the generator.
        cache_folder: Keep samples here, and take those that were made before; None keeps none.
        progress: Told what is being done and how far it is.

    Raises:
        AdapterError: An input has no definite shape, or not the one that is asked for.
        RecordError: A choice cannot be.
    """
    if samples < 1 or seed < 0:
        raise RecordError(
            f"synthetic data: {samples} samples by seed {seed}; give at least 1, and a seed from 0 on"
        )
    fixed, chosen = constants or {}, recipe or SynthesisRecipe()
    specs = definite(_free_inputs(model.input_specs, fixed), dict(chosen.shapes))
    made = _Making.of(model, specs, samples, seed, preprocess, fixed, chosen)
    key = made.key()
    path = None if cache_folder is None else cache.cached_path(Path(cache_folder), key)
    ready = None if path is None else cache.load(path, key)
    if ready is None:
        ready = made.make(progress)
        if path is not None:
            cache.save(path, key, *ready)
    arrays, notes = ready
    pictures = next(
        (arrays[name] for name, space in made.spaces.items() if isinstance(space, Pictures)), None
    )
    return dataclasses.replace(
        made.dataset(arrays), kind=SOURCE, available=None, seed=seed, notes=notes, pictures=pictures
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Making:
    """A model and what is wanted of it.

    Attributes:
        model: The float model.
        specs: Its inputs, without those that are fixed.
        texts: Those of them that take texts.
        spaces: What samples of the others are made of, by name.
        count: Samples wanted.
        seed: Any integer from 0.
        constants: Inputs that are fixed.
        recipe: The choices.
    """

    model: Model
    specs: Sequence[InputSpec]
    texts: Sequence[InputSpec]
    spaces: Mapping[str, Space]
    count: int
    seed: int
    constants: Mapping[str, Any]
    recipe: SynthesisRecipe

    @classmethod
    def of(
        cls,
        model: Model,
        specs: Sequence[InputSpec],
        count: int,
        seed: int,
        preprocess: Preprocess | str | None,
        constants: Mapping[str, Any],
        recipe: SynthesisRecipe,
    ) -> _Making:
        """With a space for every input.

        Raises:
            AdapterError: An input has no definite shape, or takes what cannot be made.
        """
        tokens = token_inputs(specs)
        spaces = {spec.name: _space(spec, model, preprocess) for spec in specs if spec.name not in tokens}
        return cls(
            model=model,
            specs=specs,
            texts=[spec for spec in specs if spec.name in tokens],
            spaces=spaces,
            count=count,
            seed=seed,
            constants=constants,
            recipe=recipe,
        )

    def key(self) -> str:
        """Digest of all that decides the samples."""
        spaces = {name: repr(space) for name, space in self.spaces.items()}
        fixed = {name: repr(value) for name, value in self.constants.items()}
        return self.recipe.key(_VERSION, self.model.digest, spaces, fixed, self.count, self.seed)

    def make(self, progress: Progress) -> tuple[Samples, tuple[str, ...]]:
        """Samples as they are kept, and notes on how they were made."""
        fixed: dict[str, Any] = {}
        ways: list[str] = []
        if self.texts:
            fixed, way = make_texts(self.model, self.texts, self.count, self.seed, progress)
            ways.append(way)
        if self.spaces:
            try:
                drawn, way = self._by_gradients(fixed, progress)
            except NoGradientsError as err:
                drawn, way = self._by_classes(fixed, progress, str(err))
            fixed = {**fixed, **self._kept(drawn)}
            ways.append(way)
        return fixed, (f"synthetic data, made from the model: {'; '.join(ways)}",)

    def dataset(self, samples: Samples) -> Dataset:
        """Samples as they are kept, ready to be fed to the model."""
        records = [space.preprocess for space in self.spaces.values() if isinstance(space, Pictures)]
        return from_arrays(
            samples,
            input_specs=self.model.input_specs,
            constants=self.constants,
            preprocess=records[0] if records else None,
            source=SOURCE,
        )

    def _by_gradients(self, fixed: Samples, progress: Progress) -> tuple[Samples, str]:
        """Samples that are refined, and how.

        Raises:
            NoGradientsError: The model has none; says why.
        """
        refiner = self._refiner(fixed)
        terms = refiner.terms(draw(self.spaces, range(min(self.count, refiner.run_size)), self.seed))
        if not terms:
            raise NoGradientsError("neither normalizations, attention nor classes tell of its data")
        chosen = select_drawn(
            self.spaces,
            self.count,
            self.recipe.candidates,
            refiner.deviations,
            run_size=refiner.run_size,
            seed=self.seed,
            progress=progress,
        )
        if refiner.run_size < _FEWEST_TOGETHER or not self.recipe.steps:
            return chosen, f"{self._drawn_as()}, selected by {listed(terms)}"
        return refiner.refine(
            chosen, progress
        ), f"{self._drawn_as()}, selected and refined by {listed(terms)}"

    def _refiner(self, fixed: Samples) -> Refiner:
        if not isinstance(self.model, Observable):
            raise NoGradientsError(f"{self.model.format} models have none here")
        made = [spec for spec in self.specs if spec.name in self.spaces]
        whole = next((spec for spec in made if spec.dtype not in FLOATING), None)
        if whole is not None:
            raise NoGradientsError(f"input {whole.name} takes {whole.dtype}")
        few = min(2, self.count)
        texts = {name: tokens[:few] for name, tokens in fixed.items()}
        drawn = draw(self.spaces, range(few), self.seed)
        example = self.dataset({**texts, **self._kept(drawn)}).inputs()
        observer = self.model.observer(example)
        from lampq.adapters.synthetic.refining import Refiner

        constants = {
            name: np.repeat(example.groups[0][name][:1], self.count, axis=0) for name in self.constants
        }
        refiner = Refiner(
            observer=observer,
            spaces=self.spaces,
            fixed={**fixed, **constants},
            head=self._head(),
            recipe=self.recipe,
            run_size=observer.most or few,
        )
        return refiner if observer.most else refiner.affordable(drawn)

    def _by_classes(self, fixed: Samples, progress: Progress, why: str) -> tuple[Samples, str]:
        """Samples that are drawn and, where the model names classes, selected by them; and how."""
        head = self._head()
        if head is None:
            return draw(self.spaces, range(self.count), self.seed), f"{self._drawn_as()} ({why})"

        def deviations(samples: Samples, rows: np.ndarray) -> np.ndarray:
            texts = {name: tokens[rows] for name, tokens in fixed.items()}
            logits = self.model.run(self.dataset({**texts, **self._kept(samples)}).inputs())[head.name]
            return class_deviations(np.exp(log_softmax(logits)))

        chosen = select_drawn(
            self.spaces,
            self.count,
            self.recipe.candidates,
            deviations,
            run_size=self._run_size(),
            seed=self.seed,
            progress=progress,
        )
        return chosen, f"{self._drawn_as()}, selected by the balance of the classes ({why})"

    def _kept(self, drawn: Samples) -> Samples:
        """Pictures as bytes, channels last, other values as they are."""
        return {
            name: np.round(255 * samples.transpose(0, 2, 3, 1)).astype(np.uint8)
            if isinstance(self.spaces[name], Pictures)
            else samples
            for name, samples in drawn.items()
        }

    def _drawn_as(self) -> str:
        pictures = all(isinstance(space, Pictures) for space in self.spaces.values())
        return "scenes of shapes" if pictures else "plain noise"

    def _head(self) -> Head | None:
        """The output that names one class for each sample."""
        shapes = {spec.name: spec.shape for spec in self.model.output_specs}
        heads = [h for h in self.model.heads if h.role == CLASSES and len(shapes.get(h.name) or ()) == 2]
        return heads[0] if len(heads) == 1 else None

    def _run_size(self) -> int:
        """Samples per run: as many as the model insists on."""
        return next((spec.batch for spec in self.specs if spec.batch is not None), self.recipe.batch)


def _free_inputs(specs: Sequence[InputSpec], constants: Mapping[str, Any]) -> list[InputSpec]:
    """The inputs that samples are made for.

    Raises:
        AdapterError: There is none.
    """
    fixed = constant_inputs(constants, specs)
    free = [spec for spec in specs if spec.name not in fixed and not spec.optional]
    if not free:
        raise AdapterError(f"synthetic data: no input is free; {takes(specs)}")
    return free


def _space(spec: InputSpec, model: Model, preprocess: Preprocess | str | None) -> Space:
    """What samples of an input are made of.

    Raises:
        AdapterError: It has no definite shape, or takes what cannot be made.
    """
    if spec.any_rank:
        raise AdapterError(
            f"synthetic data: the shape of input {spec.name} is not known; give --input-shape 3x224x224"
        )
    if spec.layout is not None and (spec.dtype in FLOATING or spec.dtype == "uint8"):
        record = preprocess if preprocess is not None else preprocess_for(model.path, spec)
        chosen = record if isinstance(record, Preprocess) else Preprocess.preset(record)
        return Pictures(preprocess=chosen.for_input(spec))
    if spec.dtype not in FLOATING or not spec.shape:
        what = "is one number for all samples" if not spec.shape else "takes whole numbers"
        raise AdapterError(f"synthetic data: input {spec} {what}; fix it with --input {spec.name}=VALUE")
    return Values(shape=lengths_of(spec))
