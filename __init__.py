"""LampQ: how many bits each layer of a neural network gets, and the model written that way.

    >>> import lampq                                                        # doctest: +SKIP
    >>> model = lampq.read("vit.onnx")                                      # doctest: +SKIP
    >>> images = lampq.read_data("calib/", input_specs=model.input_specs)   # doctest: +SKIP
    >>> profile = lampq.profile(model, images.inputs())                     # doctest: +SKIP
    >>> plan = lampq.plan(profile, average_bits=3)                          # doctest: +SKIP
    >>> lampq.apply(model, plan, "vit-3bit.onnx")                           # doctest: +SKIP

Importing it loads NumPy and nothing else; a framework is loaded when a file of its kind arrives.
"""

from __future__ import annotations

import importlib

# Not from `typing`, which takes longer to load than all else here: an interrupt meanwhile shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Budget": "lampq.core.allocating.limits",
    "Gaussian": "lampq.core.values.gaussian",
    "LampqError": "lampq.core.values.errors",
    "Layer": "lampq.core.values.layer",
    "Plan": "lampq.core.values.plan",
    "Problem": "lampq.core.values.problem",
    "Profile": "lampq.core.values.profile",
    "Solution": "lampq.core.values.solution",
    "apply": "lampq.verbs.apply",
    "compare": "lampq.verbs.compare",
    "convert": "lampq.verbs.convert",
    "demo": "lampq.verbs.demo",
    "evaluate": "lampq.verbs.evaluate",
    "fake_quantize": "lampq.verbs.fake_quantize",
    "inspect": "lampq.verbs.inspect",
    "match": "lampq.verbs.match",
    "merge": "lampq.core.values.merge",
    "plan": "lampq.verbs.plan",
    "profile": "lampq.verbs.profile",
    "quantize": "lampq.verbs.quantize",
    "read": "lampq.adapters",
    "read_data": "lampq.adapters.data",
    "report": "lampq.verbs.report",
    "schema": "lampq.core.values.schema",
    "solve": "lampq.solvers",
    "sweep": "lampq.verbs.sweep",
    "why": "lampq.verbs.why",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lampq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from lampq.adapters import read as read
    from lampq.adapters.data import read_data as read_data
    from lampq.core.allocating.limits import Budget as Budget
    from lampq.core.values.errors import LampqError as LampqError
    from lampq.core.values.gaussian import Gaussian as Gaussian
    from lampq.core.values.layer import Layer as Layer
    from lampq.core.values.merge import merge as merge
    from lampq.core.values.plan import Plan as Plan
    from lampq.core.values.problem import Problem as Problem
    from lampq.core.values.profile import Profile as Profile
    from lampq.core.values.schema import schema as schema
    from lampq.core.values.solution import Solution as Solution
    from lampq.solvers import solve as solve
    from lampq.verbs.apply import apply as apply
    from lampq.verbs.compare import compare as compare
    from lampq.verbs.convert import convert as convert
    from lampq.verbs.demo import demo as demo
    from lampq.verbs.evaluate import evaluate as evaluate
    from lampq.verbs.fake_quantize import fake_quantize as fake_quantize
    from lampq.verbs.inspect import inspect as inspect
    from lampq.verbs.match import match as match
    from lampq.verbs.plan import plan as plan
    from lampq.verbs.profile import profile as profile
    from lampq.verbs.quantize import quantize as quantize
    from lampq.verbs.report import report as report
    from lampq.verbs.sweep import sweep as sweep
    from lampq.verbs.why import why as why
