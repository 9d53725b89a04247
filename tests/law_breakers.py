"""Models that break one law each, in the way that an adapter does by mistake."""

import hashlib
import itertools

import numpy as np
from numpy_model import NumpyModel

from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.reference import judged
from lampq.core.measuring.traces import Traces
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.fisher_kinds import TRUE
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.output_spec import OutputSpec

BREAKERS = {}
"""Law -> a model that breaks it."""


def breaks(law):
    def register(model):
        BREAKERS[law] = model
        return model

    return register


@breaks("a digest is of what is stored")
class DigestOfTheVariant(NumpyModel):
    @property
    def digest(self):
        return hashlib.sha256(b"".join(weight.tobytes() for weight in self._weights.values())).hexdigest()


@breaks("layers are the same every time")
class MeasuredAnew(NumpyModel):
    def layers(self):
        self.__dict__.pop("_layers", None)
        return super().layers()


@breaks("bytes grow with bits")
class SmallerWithMoreBits(NumpyModel):
    def payload_bytes(self, layer, bits, container):
        return 1000 - bits


@breaks("a coding is a variant")
class CodingInPlace(NumpyModel):
    def with_coding(self, coding):
        self.coding = coding
        return self


@breaks("inputs are as described")
class AnotherShape(NumpyModel):
    input_specs = (InputSpec(name="x", shape=(None, None, None)),)

    def _arrays(self, batch):
        return [next(iter(group.values())) for group in Batch.of(batch)]


@breaks("inputs that do not fit are refused")
class InputsUnseen(NumpyModel):
    def _arrays(self, batch):
        return [next(iter(group.values())) for group in Batch.of(batch)]


@breaks("every output has a head")
class OutputWithoutHead(NumpyModel):
    output_specs = (*NumpyModel.output_specs, OutputSpec(name="label", shape=(None,), dtype="int64"))


@breaks("an output can be ignored")
class RunsWithNothingJudged(NumpyModel):
    def run(self, batch):
        return Batch([{"logits": self._forward(array)[-1]} for array in self._arrays(batch)])


@breaks("a choice changes one output")
class ChoiceDropsWeights(NumpyModel):
    def with_heads(self, choices):
        return super().with_heads(choices)._variant(_weights=self._stored)


@breaks("unknown outputs are refused")
class UnknownOutputsPassedOver(NumpyModel):
    def with_heads(self, choices):
        return super().with_heads([choice for choice in choices if choice.name == "logits"])


@breaks("a run gives the judged outputs")
class DoublePrecision(NumpyModel):
    def run(self, batch):
        return super().run(batch).map(np.float64)


@breaks("samples are independent")
class CentredOverTheBatch(NumpyModel):
    def _forward(self, values):
        *inputs, logits = super()._forward(values)
        return [*inputs, logits - logits.mean(axis=0)]


@breaks("groups keep their order")
class GroupsBySize(NumpyModel):
    def run(self, batch):
        return Batch(super().run(batch).groups[::-1])


@breaks("a run can be repeated")
class Random(NumpyModel):
    _runs = itertools.count(1)

    def run(self, batch):
        return super().run(batch).map(lambda array: array + next(self._runs))


@breaks("a weight is a copy")
class WeightInPlace(NumpyModel):
    def weight(self, name):
        return self._weights[self._layer(name).name]


@breaks("a variant leaves the model as it was")
class VariantInPlace(NumpyModel):
    def with_weights(self, weights):
        self._weights = super().with_weights(weights)._weights
        return self


@breaks("stored weights change nothing")
class HalfPrecision(NumpyModel):
    def with_weights(self, weights):
        return super().with_weights({name: array.astype(np.float16) for name, array in weights.items()})


@breaks("weights that do not fit are refused")
class WeightsUnseen(NumpyModel):
    def with_weights(self, weights):
        return self._variant(_weights=self._weights | weights)


@breaks("a sweep gives what runs give")
class CandidatesStay(NumpyModel):
    def sweep(self, batch, candidates):
        model = self
        for name, option, array in candidates:
            model = model.with_weights({name: array})
            yield name, option, model.run(batch)


@breaks("a sweep starts from the weights of its model")
class SweepOfTheFile(NumpyModel):
    def sweep(self, batch, candidates):
        return NumpyModel(self._stored).sweep(batch, candidates)


@breaks("a sweep answers before it draws on")
class DrawsAllAtOnce(NumpyModel):
    def sweep(self, batch, candidates):
        return super().sweep(batch, list(candidates))


@breaks("an empty sweep gives nothing")
class AnswersUnasked(NumpyModel):
    def sweep(self, batch, candidates):
        yield "", 0, self.run(batch)
        yield from super().sweep(batch, candidates)


@breaks("taps fit their layers")
class PositionsInParts(NumpyModel):
    def taps(self, batch):
        return ((name, values, positions / 2) for name, values, positions in super().taps(batch))


@breaks("taps count every sample once")
class TapsOfPadding(NumpyModel):
    def taps(self, batch):
        for name, values, positions in super().taps(batch):
            yield name, np.concatenate([values, values[-1:]]), positions


@breaks("positions are those of a sample")
class PositionsOfTheBatch(NumpyModel):
    def taps(self, batch):
        return ((name, values, positions * len(values)) for name, values, positions in super().taps(batch))


@breaks("taps see new weights")
class TapsOfTheFile(NumpyModel):
    def taps(self, batch):
        return NumpyModel(self._stored).taps(batch)


@breaks("a file computes what its plan says")
class WritesSomethingElse(NumpyModel):
    def write(self, plan, path, *, calibration=None):
        other = NumpyModel(self._weights).with_weights({"head": 1.1 * self.weight("head")})
        other.write(plan, path)


@breaks("rounded inputs take no more than planned")
class InputsForgotten(NumpyModel):
    def write(self, plan, path, *, calibration=None):
        super().write(plan, path)
        if any(layer.activation_range for layer in plan.layers):
            path.write_bytes(path.read_bytes() + bytes(10_000))


@breaks("a variant is written with its weights")
class WritesTheFile(NumpyModel):
    def write(self, plan, path, *, calibration=None):
        NumpyModel(self._stored).write(plan, path)


@breaks("layers without a decision stay float")
class DropsTheRest(NumpyModel):
    def write(self, plan, path, *, calibration=None):
        rest = set(self._weights) - set(plan.widths)
        zeros = {name: np.zeros_like(self._weights[name]) for name in rest}
        NumpyModel(self._weights | zeros).write(plan, path)


@breaks("a failed write leaves nothing")
class WritesBeforeItLooks(NumpyModel):
    def write(self, plan, path, *, calibration=None):
        path.write_bytes(b"")
        super().write(plan, path)


@breaks("fisher traces agree with small steps")
class TracesTenTimesTooLarge(NumpyModel):
    def fisher(self, batch, readout, draws, **_):
        reference = judged(self, batch, self.run(batch), "the model")
        traces = forward_fisher(self, reference, draws=draws.count)
        return Traces(kind=TRUE, weight={name: 10 * trace for name, trace in traces.items()})


@breaks("a model without layers answers")
class NoLayersNoAnswer(NumpyModel):
    def layers(self):
        if not super().layers():
            raise AdapterError("nothing to quantize")
        return super().layers()
