"""What is compared: each search gives a width for every layer within a budget of average bits."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from peers import quantizers
from peers.quantizers import Weights
from peers.subjects import Subject
from torch import nn

import lampq
from lampq import solvers
from lampq.adapters.torch.model import TorchModel
from lampq.core.allocating.allocation import build_problem, uniform_choice
from lampq.core.measuring.reference import measure_reference
from lampq.core.searching.bench import Bench
from lampq.core.searching.recentre import refine
from lampq.core.searching.superposition import allocate
from lampq.core.values.budget import Budget
from lampq.verbs.best_plan import best_plan

WIDTHS = tuple(range(2, 9))
GRADIENT, KL_DIV = "ModelOpt auto_quantize, gradient", "ModelOpt auto_quantize, kl_div"
HAWQ, UNIFORM = "HAWQ: Hessian trace x error", "uniform"
ROUNDS = "lampq superposition, rounds"
_BATCH = 65
_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A plan.

    Attributes:
        method: What made it.
        budget: Average bits it was made for.
        widths: Layer -> bits.
        measuring_s: Processor seconds of the measurements behind it, which all budgets of the method share.
        search_s: The same of everything after them.
    """

    method: str
    budget: float
    widths: Mapping[str, int]
    measuring_s: float
    search_s: float


def processor_s() -> float:
    """Processor time so far, with that of finished child processes: ModelOpt's solver is one."""
    return sum(os.times()[:4])


def uniform(profile: lampq.Profile, budgets: Sequence[float]) -> Iterator[Found]:
    """The widest whole width that fits."""
    for budget in budgets:
        widths = dict.fromkeys((layer.name for layer in profile.layers), int(budget))
        yield Found(method=UNIFORM, budget=budget, widths=widths, measuring_s=0, search_s=0)


def modelopt(subject: Subject, quantizer: str, method: str, budgets: Sequence[float]) -> Iterator[Found]:
    """NVIDIA ModelOpt: `auto_quantize` over formats of 2 to 8 bits, no layer left unquantized, once.

    The plans of the other budgets are solved from the state of its search, as `get_auto_quantize_config` offers.
    """
    inputs, labels = map(torch.from_numpy, subject.calibration)
    data = list(zip(inputs.split(_BATCH), labels.split(_BATCH), strict=True))
    formats = [quantizers.format_of(quantizer, bits) for bits in WIDTHS]
    # Without a rule for all layers it would add "not quantized", at 16 bits, to every layer's formats.
    rule = {"module_name_patterns": ["*"], "quantization_formats": formats, "allow_no_quant": False}
    options = {}
    if method == GRADIENT:
        options["loss_func"] = lambda output, batch: nn.functional.cross_entropy(output, batch[1])
    begun = processor_s()
    with warnings.catch_warnings():
        # It says that results of custom formats may not be optimal.
        warnings.simplefilter("ignore")
        _, state = mtq.auto_quantize(
            copy.deepcopy(subject.module),
            {"effective_bits": budgets[0]},
            quantization_formats=formats,
            module_search_spaces=[rule],
            data_loader=data,
            forward_step=lambda module, batch: module(batch[0]),
            num_calib_steps=len(data),
            num_score_steps=len(data),
            method="gradient" if method == GRADIENT else "kl_div",
            **options,
        )
    measuring = processor_s() - begun
    for budget in budgets:
        begun = processor_s()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = mtq.get_auto_quantize_config(state, {"effective_bits": budget})
        seconds = processor_s() - begun
        widths = {
            entry["quantizer_name"].removesuffix(".weight_quantizer"): entry["cfg"]["num_bits"]
            for entry in config["quant_cfg"]
            if entry["quantizer_name"].endswith(".weight_quantizer") and entry.get("cfg")
        }
        yield Found(
            method=method,
            budget=budget,
            widths=widths,
            measuring_s=measuring,
            search_s=seconds,
        )


def hawq(subject: Subject, profile: lampq.Profile, budgets: Sequence[float]) -> Iterator[Found]:
    """HAWQ-V2 (Dong et al., NeurIPS 2020): mean Hessian trace x squared weight error, and an exact solver."""
    begun = processor_s()
    traces = _hessian_traces(subject, [layer.name for layer in profile.layers])
    # Its theory is of a converged model, where no trace is negative.
    cost = np.maximum(traces / profile.sizes, 0)[:, None] * profile.weight_error
    method = f"{HAWQ} ({int((traces < 0).sum())} of {len(traces)} traces below 0)"
    measuring = processor_s() - begun
    for budget in budgets:
        begun = processor_s()
        problem = build_problem(profile, cost, Budget(average_bits=budget))
        widths = _widths(profile, solvers.solve(problem).choice)
        yield Found(
            method=method,
            budget=budget,
            widths=widths,
            measuring_s=measuring,
            search_s=processor_s() - begun,
        )


def profiled(model: TorchModel, inputs: np.ndarray) -> tuple[lampq.Profile, tuple[float, float]]:
    """A profile, and the processor seconds of one without Fisher traces and with them, which one mode alone needs."""
    begun = processor_s()
    lampq.profile(model, inputs, bits=WIDTHS, fisher_draws=0)
    between = processor_s()
    profile = lampq.profile(model, inputs, bits=WIDTHS)
    return profile, (between - begun, processor_s() - between)


def ours(
    subject: Subject,
    model: TorchModel,
    profile: lampq.Profile,
    measuring_s: tuple[float, float],
    budgets: Sequence[float],
) -> Iterator[Found]:
    """The modes of `lampq.plan`, and the rounds of `lampq.quantize`, on one profile."""
    batch = subject.calibration[0]
    alone, with_traces = measuring_s
    for budget in budgets:
        for mode, seconds in (("fisher", with_traces), ("kl", alone), ("superposition", alone)):
            begun = processor_s()
            plan = lampq.plan(profile, average_bits=budget, mode=mode)
            yield _found(f"lampq {mode}", budget, plan.widths, seconds, begun)
        begun = processor_s()
        plan = best_plan(model, profile, batch, Budget(average_bits=budget), mode="superposition")
        yield _found(ROUNDS, budget, plan.widths, alone, begun)


def ours_with(
    subject: Subject, model: TorchModel, profile: lampq.Profile, weights: Weights, budgets: Sequence[float]
) -> Iterator[Found]:
    """The same with another quantizer in every measurement."""
    layers, batch = profile.layers, subject.calibration[0]

    def quantized(layer: int, option: int) -> np.ndarray:
        return weights[layers[layer].name, WIDTHS[option]]

    begun = processor_s()
    problem = build_problem(profile, profile.kl, Budget(average_bits=max(budgets)))
    reference = measure_reference(model, batch)
    measured = Bench(model, layers, WIDTHS, problem, reference, quantizer=quantized).around(None)
    cost = np.minimum.accumulate(measured.kl, axis=1)
    seconds = processor_s() - begun
    for budget in budgets:
        begun = processor_s()
        problem = build_problem(profile, cost, Budget(average_bits=budget))
        additive = solvers.solve(problem).choice
        yield _found("lampq kl", budget, _widths(profile, additive), seconds, begun)
        starts = [additive, uniform_choice(profile, problem)]
        found = allocate(measured.interaction, problem, starts, keep=8, bound_limit_s=0)
        yield _found("lampq superposition", budget, _widths(profile, found.solution.choice), seconds, begun)
        bench = Bench(model, layers, WIDTHS, problem, reference, quantizer=quantized)
        refined = refine(bench, [*found.choices, *starts], rounds=3)
        yield _found(ROUNDS, budget, _widths(profile, refined.choice), seconds, begun)


def _found(method: str, budget: float, widths: Mapping[str, int], measuring_s: float, begun: float) -> Found:
    seconds = processor_s() - begun
    return Found(method=method, budget=budget, widths=widths, measuring_s=measuring_s, search_s=seconds)


def _widths(profile: lampq.Profile, choice: np.ndarray) -> dict[str, int]:
    return {layer.name: WIDTHS[option] for layer, option in zip(profile.layers, choice.tolist(), strict=True)}


def _hessian_traces(subject: Subject, names: Sequence[str]) -> np.ndarray:
    """Trace of each layer's Hessian of the mean cross-entropy, by Hutchinson's estimator.

    Each layer gets vectors of its own, one for each of eight parts of the images: with vectors on all layers at once
    what the layers share would drown the traces.
    """
    module = copy.deepcopy(subject.module)
    parameters = [module.get_parameter(f"{name}.weight") for name in names]
    inputs, labels = map(torch.from_numpy, subject.calibration)
    generator = torch.Generator().manual_seed(0)
    total = np.zeros(len(names))
    for x, y in zip(inputs.chunk(_PROBES), labels.chunk(_PROBES), strict=True):
        loss = nn.functional.cross_entropy(module(x), y, reduction="sum")
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            sign = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1
            (product,) = torch.autograd.grad(gradient, parameter, sign, retain_graph=True)
            total[index] += float((sign * product).sum())
    return total / len(inputs)
