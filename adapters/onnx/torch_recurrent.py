"""LSTM, GRU and RNN in PyTorch, step by step, from weights as ONNX stores them: (directions, gates * hidden, ...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.onnx.torch_call import Call, Function

State = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, State], State]
"""From the inputs of a step, already multiplied by W, and a state to the next state; the hidden state is first."""

_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def _recurrent(call: Call) -> Sequence[torch.Tensor]:
    x = call.tensor(0)
    if call.get("layout", 0) or call.optional(4) is not None or call.get("clip") is not None:
        raise UnsupportedOperatorError(f"{call.name} with lengths, a clip or samples first")
    directions = len(call.tensor(1))
    usual = [name.lower() for _ in range(directions) for name in _DEFAULTS[call.name]]
    if [name.lower() for name in call.get("activations") or usual] != usual:
        raise UnsupportedOperatorError(f"{call.name} with other activations")
    backward = {"forward": (False,), "reverse": (True,)}.get(call.get("direction", "forward"), (False, True))
    runs = [_run(call, x, number, reverse) for number, reverse in enumerate(backward)]
    hidden = torch.stack([steps for steps, _ in runs], dim=1)
    last = [torch.stack([state[part] for _, state in runs]) for part in range(len(runs[0][1]))]
    return [hidden, *last]


def _run(call: Call, x: torch.Tensor, number: int, reverse: bool) -> tuple[torch.Tensor, State]:
    """Hidden states of all steps (T, N, H), and the last state, of one direction."""
    weight, recurrence = call.tensor(1)[number], call.tensor(2)[number]
    size = recurrence.shape[1]
    bias = call.optional(3)
    zeros = x.new_zeros(len(weight))
    inner, outer = (zeros, zeros) if bias is None else bias[number].chunk(2)
    state: State = (_first(call, 5, number, x, size),)
    if call.name == "LSTM":
        if call.optional(7) is not None:
            raise UnsupportedOperatorError("LSTM with peepholes")
        state = (*state, _first(call, 6, number, x, size))
    step = _STEPS[call.name](call, recurrence, outer)
    projected = x @ weight.T + inner
    hidden = []
    for position in reversed(range(len(x))) if reverse else range(len(x)):
        state = step(projected[position], state)
        hidden.append(state[0])
    return torch.stack(hidden[::-1] if reverse else hidden), state


def _first(call: Call, index: int, number: int, x: torch.Tensor, size: int) -> torch.Tensor:
    stored = call.optional(index)
    return x.new_zeros(x.shape[1], size) if stored is None else stored[number]


def _lstm(_: Call, recurrence: torch.Tensor, bias: torch.Tensor) -> Step:
    def step(inputs: torch.Tensor, state: State) -> State:
        hidden, cell = state
        i, o, f, c = (inputs + hidden @ recurrence.T + bias).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(c)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    return step


def _gru(call: Call, recurrence: torch.Tensor, bias: torch.Tensor) -> Step:
    after = bool(call.get("linear_before_reset", 0))
    *gates, candidate = recurrence.chunk(3)
    *gate_bias, candidate_bias = bias.chunk(3)

    def step(inputs: torch.Tensor, state: State) -> State:
        (hidden,) = state
        z, r, h = inputs.chunk(3, dim=-1)
        z = torch.sigmoid(z + hidden @ gates[0].T + gate_bias[0])
        r = torch.sigmoid(r + hidden @ gates[1].T + gate_bias[1])
        if after:
            h = torch.tanh(h + r * (hidden @ candidate.T + candidate_bias))
        else:
            h = torch.tanh(h + (r * hidden) @ candidate.T + candidate_bias)
        return ((1 - z) * h + z * hidden,)

    return step


def _rnn(_: Call, recurrence: torch.Tensor, bias: torch.Tensor) -> Step:
    return lambda inputs, state: (torch.tanh(inputs + state[0] @ recurrence.T + bias),)


_STEPS: dict[str, Callable[[Call, torch.Tensor, torch.Tensor], Step]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
}

OPERATORS: dict[str, Function] = dict.fromkeys(_STEPS, _recurrent)
