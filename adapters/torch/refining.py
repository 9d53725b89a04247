"""Rounding learned block by block: what each block of the quantized network gives comes closest to the float one's.

Every weight of a block has a real-valued code that starts between the weight and its code, and every channel a scale;
both are trained through the rounding as if it were not there (straight through), on minibatches that come from easy
samples to hard ones. A block keeps what it learned where that helps on minibatches left out. Block by block, blocks
before it already learned, activations rounded.

Sources: Hubara et al. 2021 (AdaQuant), arXiv:2006.10518; Nagel et al. 2020 (AdaRound), arXiv:2004.10568; Li et al. 2021
(BRECQ: blocks), arXiv:2102.05426; Jiang et al. 2025 (AIQViT: from easy to hard), arXiv:2502.04628.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lampq.adapters.torch.blocks import Block, blocks
from lampq.adapters.torch.rounding import Rounding
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.soft_codes import SoftCodes, Straight
from lampq.adapters.torch.tape import Call, Tape, Values
from lampq.adapters.torch.variant import Varied
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.progress import Progress

# Samples of a minibatch; of so many minibatches one is left out to judge by.
_SIZE, _LEFT_OUT = 16, 4
# How far a code can go in all steps together (in units of one), and the first step of scales (relative); steps fall to
# none.
_REACH, _RATE = 2.0, 1e-3
# How often what was learned is judged.
_LOOKS = 4
# Share of the minibatches that training begins with; all of them from half of the steps on.
_EASY = 0.3


def learned_codes(
    model: Varied,
    quantized: Varied,
    codes: Mapping[str, Quantized],
    batch: Batch,
    steps: int,
    progress: Progress,
) -> dict[str, Quantized]:
    """Codes of the layers for which learning helped, by name.

    Args:
        model: The float model.
        quantized: It with the weights of the codes, and its activations rounded.
        codes: Where learning starts, by layer.
        batch: Calibration inputs, easy samples first.
        steps: For each block.
        progress: Told after every block.

    Raises:
        AdapterError: Every batch takes a course of its own.
    """
    exact_model, rounded_model = model.variant, quantized.variant
    runtime = exact_model.runtime
    chunks = [chunk for chunk in runtime.chunks(batch, _SIZE) if chunk.group == 0]
    # Tapes are of one number of samples: the rest of them has no minibatch.
    chunks = [chunk for chunk in chunks if chunk.size == chunks[0].size]
    if runtime.obstacle is not None:
        raise AdapterError(
            f"{runtime.name}: every batch takes a course of its own ({runtime.obstacle}), so its blocks "
            f"cannot be refined; leave out --refine"
        )
    rounding = rounded_model.rounding
    recording = runtime.recording(
        chunks[0].inputs, exact_model.tensors, grad=True, products=rounding.products
    )
    tape = recording.tape
    exact = [tape.start(exact_model.tensors, chunk.inputs) for chunk in chunks]
    rounded = [tape.start(rounded_model.tensors, chunk.inputs) for chunk in chunks]
    call = _straight_through(rounding, recording)
    parts = blocks(recording, {exact_model.parameters[name]: name for name in codes})
    learned: dict[str, Quantized] = {}
    for number, block in enumerate(parts):
        with torch.no_grad():
            exact = [tape.play(values, begin=block.begin, end=block.end) for values in exact]
        layers = {name: _soft(model, name, codes[name]) for name in block.layers}
        trained = _Trained(model, tape, block, layers, call)
        if layers and trained.train(rounded, exact, steps):
            learned |= {name: soft.quantized() for name, soft in layers.items()}
            rounded = [values | trained.weights() for values in rounded]
        with torch.no_grad():
            rounded = [tape.play(values, begin=block.begin, end=block.end, call=call) for values in rounded]
        progress("refining blocks", number + 1, len(parts))
    return learned


class _Trained:
    """A block whose codes are learned.

    Args:
        model: The float model.
        tape: Its tape.
        block: Operators of the block.
        layers: What is learned, by layer.
        call: Rounds activations.
    """

    def __init__(
        self, model: Varied, tape: Tape, block: Block, layers: Mapping[str, SoftCodes], call: Call | None
    ) -> None:
        self._model, self._tape, self._block, self._layers, self._call = model, tape, block, layers, call
        later = {slot for operation in tape.operations[block.end :] for _, slot in operation.reads}
        fixed = {*tape.weights.values(), *tape.constants, *tape.inputs.values()}
        self._read_later = (later | set(tape.outputs.values())) - fixed

    def train(self, inputs: Sequence[Values], targets: Sequence[Values], steps: int) -> bool:
        """Take the codes that lose least on minibatches left out, of all that were looked at.

        Args:
            inputs: Values before the block, by minibatch, easy ones first.
            targets: What the float model has behind it.
            steps: How many.

        Returns:
            Whether they lose less than those at the start.
        """
        own = [index for index in range(len(inputs)) if (index + 1) % _LEFT_OUT]
        judged = [index for index in range(len(inputs)) if index not in own] or own
        least, best = self._lost(inputs, targets, judged, start=True), None
        looks = {round(steps * (look + 1) / _LOOKS) for look in range(_LOOKS)}
        groups = [
            {"params": [soft.latent for soft in self._layers.values()], "lr": 2 * _REACH / steps},
            {"params": [soft.log_scale for soft in self._layers.values()], "lr": _RATE},
        ]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for step, index in enumerate(_from_easy_to_hard(own, steps), start=1):
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = self._loss(inputs[index], targets[index])
            if not loss.requires_grad:
                # Nothing behind the block reads what its layers give.
                return False
            loss.backward()
            optimizer.step()
            schedule.step()
            if step in looks and (lost := self._lost(inputs, targets, judged)) < least:
                least, best = lost, [soft.state() for soft in self._layers.values()]
        for soft, state in zip(self._layers.values(), best or (), strict=best is not None):
            soft.restore(state)
        return best is not None

    @torch.no_grad()
    def weights(self) -> dict[int, torch.Tensor]:
        """What the codes stand for, by slot."""
        return {self._slot(name): soft.weight() for name, soft in self._layers.items()}

    def _slot(self, name: str) -> int:
        return self._tape.weights[self._model.variant.parameters[name]]

    @torch.no_grad()
    def _lost(
        self,
        inputs: Sequence[Values],
        targets: Sequence[Values],
        which: Sequence[int],
        *,
        start: bool = False,
    ) -> float:
        return sum(float(self._loss(inputs[index], targets[index], start=start)) for index in which)

    def _loss(self, values: Values, target: Values, *, start: bool = False) -> torch.Tensor:
        """Error of all that later blocks read; `start`: with the codes as they were."""
        own = {} if start else {self._slot(name): soft.weight() for name, soft in self._layers.items()}
        given = self._tape.play(
            {**values, **own}, begin=self._block.begin, end=self._block.end, call=self._call
        )
        errors = [_error(given[slot], target[slot]) for slot in sorted(self._read_later & target.keys())]
        device = self._model.variant.runtime.device
        return torch.stack(errors).sum() if errors else torch.zeros((), device=device)


def _error(given: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Squared error, relative to the square; of whole numbers and of nothing none."""
    if not exact.is_floating_point() or not exact.numel():
        return torch.zeros((), device=exact.device)
    return (given - exact).float().square().mean() / exact.float().square().mean().clamp_min(1e-12)


def _from_easy_to_hard(minibatches: Sequence[int], steps: int) -> Iterator[int]:
    """A minibatch for each step, among ever more of them."""
    draw = np.random.default_rng(0)
    for step in range(steps):
        share = min(1.0, _EASY + (1 - _EASY) * 2 * step / steps)
        yield minibatches[int(draw.integers(max(1, math.ceil(share * len(minibatches)))))]


def _soft(model: Varied, name: str, quantized: Quantized) -> SoftCodes:
    layer = next(layer for layer in model.layers() if layer.name == name)
    target = model.coding.targets.get(name)
    weight = model.weight(name) if target is None else target
    return SoftCodes(quantized, weight, layer.channel_axis, like=model.variant.tensor(name))


def _straight_through(rounding: Rounding, recording: Recording) -> Call | None:
    rules: dict[str, Any] = {name: Straight(rule) for name, rule in rounding.rules.items()}
    return Rounding(rules=rules).call(recording)
