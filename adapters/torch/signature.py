"""What a module's forward takes, by name, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lampq.core.values.errors import AdapterError

IDS, MASK = "input_ids", "attention_mask"
# What a decoder keeps for its next token is no output, and costs memory.
_OFF = {"use_cache": False, "output_attentions": False, "output_hidden_states": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The inputs of a module.

    Attributes:
        names: Every input that it takes, in order.
        required: Those that it cannot do without.
        keywords: Those that are passed by name.
        constants: Arguments that are always passed.
        padding: Token that stands for nothing, where the attention mask may be left out: then it is taken from it.
        many: The module takes any number of inputs, one after the other, whatever they are called.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    keywords: frozenset[str] = frozenset()
    constants: Mapping[str, Any] = field(default_factory=dict)
    padding: int | None = None
    many: bool = False

    @classmethod
    def of(cls, module: torch.nn.Module) -> Signature:
        """The signature of a module's forward; a model of transformers needs its main input alone."""
        parameters = inspect.signature(module.forward).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names = tuple(p.name for p in named)
        main = str(getattr(module, "main_input_name", ""))
        if main in names and hasattr(module, "config"):
            padding = getattr(module.config, "pad_token_id", None)
            return cls(
                names=names,
                required=(main,),
                keywords=frozenset(names),
                constants={name: value for name, value in _OFF.items() if name in names},
                padding=padding if {IDS, MASK} <= set(names) else None,
            )
        return cls(
            names=names,
            required=tuple(p.name for p in named if p.default is p.empty),
            keywords=frozenset(p.name for p in named if p.kind is p.KEYWORD_ONLY),
            many=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        )

    @property
    def main(self) -> str:
        """The input that a lone array is."""
        return (*self.required, *self.names, "input")[0]

    def check(self, names: Sequence[str], model: str) -> None:
        """That the module can be called with inputs of these names.

        Raises:
            AdapterError: One is missing, or unknown.
        """
        missing = [name for name in self.required if name not in names]
        unknown = [] if self.many else [name for name in names if name not in self.names]
        if missing or unknown:
            what = f"lacks {', '.join(missing)}" if missing else f"also has {', '.join(unknown)}"
            optional = [name for name in self.names if name not in self.required]
            more = f" (and can take {', '.join(optional)})" if optional else ""
            takes = ", ".join(self.required) or "one input"
            raise AdapterError(f"{model} takes {takes}{more}; the batch {what}")

    def arguments(
        self, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        """What the module is called with, as (args, kwargs).

        Without an attention mask, tokens of padding are left out of attention.
        """
        inputs = dict(inputs)
        if self.padding is not None and IDS in inputs and MASK not in inputs:
            inputs[MASK] = (inputs[IDS] != self.padding).long()
        if self.many and not self.names:
            return tuple(inputs.values()), {}
        args: list[torch.Tensor] = []
        keywords = dict(self.constants)
        leading = True
        for name in self.names:
            leading = leading and name in inputs and name not in self.keywords
            if leading:
                args.append(inputs[name])
            elif name in inputs:
                keywords[name] = inputs[name]
        return tuple(args), keywords
