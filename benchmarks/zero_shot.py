"""Plans from samples that are made from the model alone, against real samples and Gaussian noise.

    python benchmarks/zero_shot.py digits
    python benchmarks/zero_shot.py cifar --model model.py:build --weights w.pth --calib DATA/calib --val DATA/val
    python benchmarks/zero_shot.py variants --model model.py:build --weights w.pth --calib DATA/calib --val DATA/val

All plans round to the inputs of the samples that they were searched on, and are judged on validation samples that no
search saw. `variants` compares ways to make the samples by the second moments of the layers' inputs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping

import numpy as np
import report

import lampq
from lampq import adapters
from lampq.adapters.data import preprocess_for
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.moments import input_moments
from lampq.core.measuring.reference import with_examples
from lampq.core.values.budget import Budget
from lampq.core.values.request import Request
from lampq.demo_data import MODEL_PATH, calibration, validation
from lampq.verbs.best_plan import best_plan
from lampq.verbs.fake_quantize import fake_quantize

BUDGETS = ("3", "2.5")
VARIANTS: Mapping[str, Mapping[str, float]] = {
    "drawn, neither selected nor refined": {"candidates": 1, "steps": 0},
    "selected alone": {"steps": 0},
    "refined alone": {"candidates": 1},
    "**as it is: selected and refined**": {},
    "20 steps": {"steps": 20},
    "first step 0.03": {"rate": 0.03},
    "fine detail as free as coarse (power 0)": {"smoothness": 0.0},
    "fine detail held back (power 1)": {"smoothness": 1.0},
    "with confidence 0.2": {"confidence": 0.2},
    "with patch-similarity entropy 0.05 (PSAQ-ViT)": {"entropy": 0.05},
    "entropy and confidence alone, no statistics (PSAQ-ViT)": {
        "statistics": 0.0,
        "entropy": 1.0,
        "confidence": 1.0,
    },
    "with total variation 0.1": {"variation": 0.1},
}


def noise(model, samples: int) -> np.ndarray:
    """Gaussian noise in the shape of the model's input."""
    shape = model.input_spec.shape[1:]
    return np.random.default_rng(0).standard_normal((samples, *shape)).astype(np.float32)


def sources(model, real: np.ndarray, preprocess) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, samples and CPU seconds of making them: as many of each kind as there are real ones."""
    yield "real", real, 0.0
    began = time.process_time()
    made = lampq.synthetic(model, len(real), preprocess=preprocess)
    inputs = np.asarray(made.inputs())
    print(made.notes[0], flush=True)
    yield "synthetic", inputs, time.process_time() - began
    yield "Gaussian noise", noise(model, len(real)), 0.0


def moment_errors(model, samples: np.ndarray, real: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of every layer: distance of the input's second moments to the real ones, relative to their norm (Frobenius)."""
    own = input_moments(model, model.layers(), samples)
    return np.array([np.linalg.norm(own[name] - real[name]) / np.linalg.norm(real[name]) for name in real])


def plans(model, real, inputs, labels, preprocess, measure, rounds) -> list[tuple[str, ...]]:
    """A row for every source and budget."""
    model = with_examples(model, real)
    moments = input_moments(model, model.layers(), real)
    rows = []
    for name, samples, made_s in sources(model, real, preprocess):
        began = time.process_time()
        coded = with_rounding(model, "inputs", None, samples)
        profile = lampq.profile(coded, samples, rounding="inputs", measure=measure, fisher_draws=0)
        errors = moment_errors(model, samples, moments)
        for budget in BUDGETS:
            request = Request(budget=Budget(average_bits=budget), rounds=rounds)
            plan = best_plan(coded, profile, samples, request)
            judged = lampq.evaluate(
                fake_quantize(model, plan, batch=samples), inputs, labels, reference=model
            )
            cells = (f"{made_s:.0f}", f"{time.process_time() - began:.0f}", f"{np.mean(errors):.2f}")
            rows.append((name, budget, *cells, f"{100 * judged.top1:.2f}", f"{judged.kl:.4f}"))
            print(*rows[-1], sep=" | ", flush=True)
            began = time.process_time()
    return rows


def variants(model, real, inputs, labels, preprocess) -> list[tuple[str, ...]]:
    """A row for every way to make 256 samples: moments of the layers' inputs, and damage of uniform plans."""
    model = with_examples(model, real)
    moments = input_moments(model, model.layers(), real)
    profile = lampq.profile(model, bits=(2, 3))
    uniform = [lampq.plan(profile, average_bits=bits, mode="error", pins=[f"*={bits}"]) for bits in (3, 2)]

    def row(name: str, samples: np.ndarray, seconds: float) -> tuple[str, ...]:
        errors, damage = moment_errors(model, samples, moments), []
        for plan in uniform:
            rounded = with_rounding(model, "inputs", None, samples)
            settings = {
                layer.name: _rounded(rounded, layer, decision.weight_bits)
                for layer, decision in zip(model.layers(), plan.layers, strict=True)
            }
            damage.append(lampq.evaluate(model.with_weights(settings), inputs, labels, reference=model).kl)
        cells = (f"{seconds:.0f}", f"{np.mean(errors):.2f}", f"{np.max(errors):.2f}")
        print(name, *cells, *damage, sep=" | ", flush=True)
        return (name, *cells, *(f"{value:.4f}" for value in damage))

    rows = [row("256 real images", real[:256], 0), row("Gaussian noise", noise(model, 256), 0)]
    for name, choices in VARIANTS.items():
        began = time.process_time()
        recipe = lampq.SynthesisRecipe(**choices)
        made = lampq.synthetic(model, 256, preprocess=preprocess, recipe=recipe)
        rows.append(row(name, np.asarray(made.inputs()), time.process_time() - began))
    return rows


def _rounded(model, layer, bits: int) -> np.ndarray:
    from lampq.core.measuring.setting import rounded_weight

    return rounded_weight(model, layer, bits)


def read_cifar(args: argparse.Namespace):
    """Model, samples to search on and to judge by, labels, and the preprocessing."""
    model = adapters.read(args.model, weights=args.weights)
    calib, val = (
        lampq.read_data(source, input_specs=model.input_specs, preprocess="cifar10", samples=count)
        for source, count in ((args.calib, args.samples), (args.val, None))
    )
    return model, np.asarray(calib.inputs()), np.asarray(val.inputs()), val.labels(), "cifar10"


def read_digits(args: argparse.Namespace):
    """The bundled model and digits, 256 of which are searched on."""
    model = adapters.read(MODEL_PATH)
    inputs, labels = validation()
    # What the bundled images were normalized with.
    record = preprocess_for(MODEL_PATH, model.input_specs[0], mean=(0.305,), std=(0.376,))
    return model, calibration()[: args.samples or 256], inputs, labels, record


def main() -> None:
    """One comparison, written to `results`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("digits", "cifar", "variants"))
    for flag in ("--model", "--weights", "--calib", "--val"):
        parser.add_argument(flag)
    parser.add_argument("--samples", type=int, help="samples to search on")
    parser.add_argument("--measure", default="differences", help="how profiles measure (see lampq profile)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of measuring around a plan (3)")
    args = parser.parse_args()
    setting = read_digits(args) if args.what == "digits" else read_cifar(args)
    if args.what == "variants":
        columns = (
            "samples",
            "CPU s",
            "moments: mean error",
            "worst layer",
            "val KL, uniform 3 bits",
            "2 bits",
        )
        rows = variants(*setting)
    else:
        columns = (
            "samples",
            "budget (bits)",
            "made in CPU s",
            "profile and plan, CPU s",
            "moments: mean error",
        )
        columns = (*columns, "val top-1 (%)", "val KL (nats)")
        rows = plans(*setting, measure=args.measure, rounds=args.rounds)
    names = {"digits": "zero_shot_digits", "cifar": "zero_shot", "variants": "zero_shot_variants"}
    counts = f"{len(setting[1])} samples to search on, {len(setting[2])} others to judge by."
    title = f"Samples from the model alone: {args.what}"
    report.write(
        names[args.what], title, f"{report.table(columns, rows)}\n\n{counts}", packages=("numpy", "torch")
    )


if __name__ == "__main__":
    main()
