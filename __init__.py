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

__version__ = "0.2.0"

# The one list of public names: type checkers read it, and so does `_exports`.
if TYPE_CHECKING:
    from typing import Any

    from lampq.adapters import read as read
    from lampq.adapters.data import read_data as read_data
    from lampq.adapters.synthetic import SynthesisRecipe as SynthesisRecipe
    from lampq.adapters.synthetic import synthetic as synthetic
    from lampq.adapters.torch import load_quantized as load_quantized
    from lampq.core.values.budget import Budget as Budget
    from lampq.core.values.errors import AdapterError as AdapterError
    from lampq.core.values.errors import BudgetError as BudgetError
    from lampq.core.values.errors import LampqError as LampqError
    from lampq.core.values.errors import MissingExtraError as MissingExtraError
    from lampq.core.values.errors import NoGradientsError as NoGradientsError
    from lampq.core.values.errors import OutputError as OutputError
    from lampq.core.values.errors import OutputExistsError as OutputExistsError
    from lampq.core.values.errors import PlanError as PlanError
    from lampq.core.values.errors import RecordError as RecordError
    from lampq.core.values.errors import SolverError as SolverError
    from lampq.core.values.errors import WorkerError as WorkerError
    from lampq.core.values.gaussian import Gaussian as Gaussian
    from lampq.core.values.head import Head as Head
    from lampq.core.values.head import HeadChoice as HeadChoice
    from lampq.core.values.layer import Layer as Layer
    from lampq.core.values.measurement import Measurement as Measurement
    from lampq.core.values.merge import merge as merge
    from lampq.core.values.option import Option as Option
    from lampq.core.values.plan import Plan as Plan
    from lampq.core.values.problem import Problem as Problem
    from lampq.core.values.profile import Profile as Profile
    from lampq.core.values.recipe import Recipe as Recipe
    from lampq.core.values.request import Request as Request
    from lampq.core.values.role_kind import RoleKind as RoleKind
    from lampq.core.values.schema import schema as schema
    from lampq.core.values.score import Score as Score
    from lampq.core.values.solution import Solution as Solution
    from lampq.core.values.tables import TableKind as TableKind
    from lampq.core.values.work import Work as Work
    from lampq.metrics.boxes import Boxes as Boxes
    from lampq.metrics.metric import Metric as Metric
    from lampq.solvers import solve as solve
    from lampq.verbs.apply import Applied as Applied
    from lampq.verbs.apply import apply as apply
    from lampq.verbs.compare import compare as compare
    from lampq.verbs.convert import convert as convert
    from lampq.verbs.demo import demo as demo
    from lampq.verbs.evaluate import evaluate as evaluate
    from lampq.verbs.fake_quantize import fake_quantize as fake_quantize
    from lampq.verbs.inspect import inspect as inspect
    from lampq.verbs.low_rank import low_rank as low_rank
    from lampq.verbs.match import match as match
    from lampq.verbs.picture import plot as plot
    from lampq.verbs.plan import plan as plan
    from lampq.verbs.profile import profile as profile
    from lampq.verbs.quantize import quantize as quantize
    from lampq.verbs.report import report as report
    from lampq.verbs.simulate import simulate as simulate
    from lampq.verbs.sweep import sweep as sweep
    from lampq.verbs.task import Task as Task
    from lampq.verbs.why import why as why


def _exports() -> dict[str, str]:
    """Public names and the modules that define them, off the imports above."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names if alias.asname}


def __getattr__(name: str) -> Any:
    exports = _exports()
    if name == "__all__":
        value: Any = ["__version__", *sorted(exports)]
    elif name in exports:
        value = getattr(importlib.import_module(exports[name]), name)
    else:
        raise AttributeError(f"module 'lampq' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *_exports()])
