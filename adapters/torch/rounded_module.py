"""A module that rounds its activations while it runs, whatever its code: the operators are met as they come by.

Where sites are is found in the module's first run, on its tape; from then on the n-th product or convolution of a run
is known by its number.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.kernels import plain_attention, plain_products
from lampq.adapters.torch.rounding import Site, sites
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.survey import MULTIPLYING
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError

_Placed = Mapping[int, list[tuple[Site, int, ActivationRule]]]


def round_activations(module: torch.nn.Module, rules: Mapping[str, ActivationRule]) -> None:
    """Have a module round its activations from now on.

    Args:
        module: The module.
        rules: By parameter of the layer that reads an input, and by site of a product's factor.
    """
    _Rounder(module, rules).attach()


class _Rounder:
    """Hooks around a module's runs."""

    def __init__(self, module: torch.nn.Module, rules: Mapping[str, ActivationRule]) -> None:
        self._module, self._rules = module, dict(rules)
        self._placed: _Placed | None = None
        self._running = contextlib.ExitStack()
        self._off = False

    def attach(self) -> None:
        self._module.register_forward_pre_hook(self._before, with_kwargs=True)
        self._module.register_forward_hook(self._after, always_call=True)

    def _before(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if self._off:
            return
        if self._placed is None:
            self._placed = self._find(args, kwargs)
        first = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor))
        for context in (plain_attention(), plain_products(), _Rounding(self._placed, len(first))):
            self._running.enter_context(context)

    def _after(self, *_: Any) -> None:
        self._running.close()

    def _find(self, args: Any, kwargs: Any) -> _Placed:
        """Number of an operator among those that multiply -> what to round there."""
        bound = inspect.signature(self._module.forward).bind(*args, **kwargs).arguments
        named = {name: value for name, value in bound.items() if isinstance(value, torch.Tensor)}
        self._off = True
        try:
            runtime = Runtime(
                self._module, execution=Execution(device=str(next(iter(named.values())).device))
            )
            runtime = runtime.fitted(Batch([{name: tensor.cpu().numpy() for name, tensor in named.items()}]))
            recording = runtime.recording(runtime.example, products=any("@" in name for name in self._rules))
        finally:
            self._off = False
        operations = [op for op in recording.tape.operations if op.name in MULTIPLYING]
        numbers = {id(operation): number for number, operation in enumerate(operations)}
        placed: dict[int, list[tuple[Site, int, ActivationRule]]] = {}
        known = {site.name: site for site in sites(recording)}
        for name, rule in self._rules.items():
            if name not in known:
                raise AdapterError(
                    f"the file rounds {name}, which the model does not have; give its own model"
                )
            site = known[name]
            operation = recording.tape.operations[site.operation]
            factor = MULTIPLYING[operation.name].index(site.leaf)
            placed.setdefault(numbers[id(operation)], []).append((site, factor, rule))
        return placed


class _Rounding(TorchDispatchMode):
    """Rounds factors of products of one run."""

    def __init__(self, placed: _Placed, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._placed, self._samples, self._count = placed, samples, -1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """See `recorder`."""
        return False

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func._schema.name not in MULTIPLYING:
            return func(*args, **(kwargs or {}))
        self._count += 1
        leaves, structure = tree_flatten((args, kwargs or {}))
        for site, factor, rule in self._placed.get(self._count, ()):
            # A linear layer may be another of these operators than on the tape, and other inputs have other tokens.
            leaf = MULTIPLYING[func._schema.name][factor]
            values, axes = leaves[leaf], site.axes
            if axes.rows > 1:
                leading = 1 if "@" in site.name else values.dim() - 1
                axes = replace(axes, leading=leading).of(tuple(values.shape), self._samples)
            leaves[leaf] = rule.apply(values, axes, torch)
        args, kwargs = tree_unflatten(leaves, structure)
        return func(*args, **kwargs)
