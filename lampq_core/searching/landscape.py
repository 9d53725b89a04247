"""The objective of allocation with interactions, laid out for looking up what moves of one or two layers change."""

from __future__ import annotations

import numpy as np

from lampq.core.measuring.interaction import Interaction
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.problem import Problem

# A move must lower the objective by more than this fraction of its scale, or rounding could make moves go in circles.
_ROUNDING = 1e-13
# Rows of the matrix that are copied at a time.
_STRIP = 256


class Landscape:
    """An interaction and the limits it is minimised under. L layers, J options, R resources.

    Args:
        interaction: Damage of a plan.
        problem: Limits and allowed options, without ties and pins. Its costs only guide random starts.

    Raises:
        RecordError: The problem has ties or pins, or does not fit the interaction.
        BudgetError: A layer has no option that is both allowed and measured.
    """

    def __init__(self, interaction: Interaction, problem: Problem) -> None:
        if problem.ties or problem.pins:
            raise RecordError("the problem has ties or pins; take problem.reduced().problem")
        if problem.cost.shape != interaction.linear.shape:
            raise RecordError(
                f"an interaction of (layers, options) {interaction.linear.shape} does not fit a problem of "
                f"{problem.cost.shape}"
            )
        self.allowed = np.isfinite(problem.cost) & interaction.measured
        if not self.allowed.any(axis=1).all():
            name = problem.layer_names[int(np.argmin(self.allowed.any(axis=1)))]
            raise BudgetError(
                f"layer {name!r}: none of its allowed options was measured; profile other widths"
            )
        self.interaction = interaction
        self.matrix = interaction.matrix
        self.linear = interaction.linear
        self.cost = problem.cost
        self.use = problem.resources
        self.limits = problem.limits
        self.layers = np.arange(len(problem.cost))
        self.offset = self.layers * problem.cost.shape[1]
        own = interaction.own
        # |a_j - a_k|^2 of the options of one layer: the curvature along a move from one to the other.
        self.curvature = own[:, :, None] + own[:, None, :] - 2 * np.einsum("ijik->ijk", interaction.gram)
        self.least_gain = _ROUNDING * float(np.abs(own).max() + np.abs(self.linear).max())

    def checked(self, choice: np.ndarray) -> np.ndarray:
        """The choice as int64, shape (L,).

        Raises:
            RecordError: It takes an option that is not allowed or not measured.
        """
        choice = np.asarray(choice, dtype=np.int64)
        if choice.shape != self.layers.shape or not self.allowed[self.layers, choice].all():
            raise RecordError("a start of the search takes an option that is not allowed or not measured")
        return choice

    def fits(self, choice: np.ndarray) -> bool:
        """Whether a choice of shape (L,) is within every limit."""
        return bool((self.use[:, self.layers, choice].sum(axis=1) <= self.limits).all())

    def gradients(self, choices: np.ndarray) -> np.ndarray:
        """Derivative of the objective by every option, shape (K, L, J), at choices of shape (K, L)."""
        rows = [self._sum_of_rows(cells) for cells in self.offset + choices]
        return self.linear + 2 * np.reshape(rows, (len(choices), *self.linear.shape))

    def _sum_of_rows(self, cells: np.ndarray) -> np.ndarray:
        """Of the matrix, a strip at a time: picking rows copies them."""
        total = self.matrix[cells[:_STRIP]].sum(axis=0)
        for start in range(_STRIP, len(cells), _STRIP):
            total += self.matrix[cells[start : start + _STRIP]].sum(axis=0)
        return total

    def random_start(self, rng: np.random.Generator) -> np.ndarray:
        """The best choice for randomly perturbed additive costs at the lowest price of resources that fits.

        Where no price makes it fit the lightest choice remains.
        """
        noisy = np.where(self.allowed, self.cost * np.exp(rng.normal(0, 0.5, self.cost.shape)), np.inf)
        size = sum(use / max(limit, 1) for use, limit in zip(self.use, self.limits.tolist(), strict=True))
        low, high = -40.0, 60.0
        for _ in range(24):
            middle = (low + high) / 2
            if self.fits(np.argmin(noisy + 2.0**middle * size, axis=1)):
                high = middle
            else:
                low = middle
        return np.argmin(noisy + 2.0**high * size, axis=1)

    def descend(self, choice: np.ndarray) -> np.ndarray:
        """A choice within the limits that no move of one layer and no joint move of two improves.

        Args:
            choice: Within the limits, shape (L,).
        """
        choice = choice.copy()
        gradient = self.gradients(choice[None])[0]
        layer = quiet = 0
        while quiet < len(choice):
            moves = self._best_moves(choice, gradient, layer)
            quiet = 0 if moves else quiet + 1
            for moved, option in moves:
                new, old = self.offset[moved] + option, self.offset[moved] + choice[moved]
                gradient += 2 * (self.matrix[new] - self.matrix[old]).reshape(gradient.shape)
                choice[moved] = option
            layer = (layer + 1) % len(choice)
        return choice

    def _best_moves(self, choice: np.ndarray, gradient: np.ndarray, layer: int) -> list[tuple[int, int]]:
        """The move of `layer`, alone or with one other layer, that lowers the objective most; empty if none does."""
        change = gradient - gradient[self.layers, choice][:, None] + self.curvature[self.layers, choice]
        change[~self.allowed] = np.inf
        heavier = self.use - self.use[:, self.layers, choice][:, :, None]
        room = self.limits - self.use[:, self.layers, choice].sum(axis=1)
        # Rows of Q along the moves of `layer`, shape (J, L, J), then along the moves of every layer.
        gram = self.interaction.gram
        rows = gram[layer] - gram[layer, choice[layer]]
        cross = rows - np.take_along_axis(
            rows, np.broadcast_to(choice[:, None], (len(rows), len(choice), 1)), axis=2
        )
        total = change[layer][:, None, None] + change + 2 * cross
        # Staying where it is makes the second layer's part zero: the move of one layer.
        total[:, layer] = np.inf
        total[:, layer, choice[layer]] = change[layer]
        left = room[:, None] - heavier[:, layer]
        joint = heavier.copy()
        joint[:, layer] = 0
        total[(joint[:, None] > left[:, :, None, None]).any(axis=0)] = np.inf
        best = int(np.argmin(total))
        if not total.flat[best] < -self.least_gain:
            return []
        option, second, second_option = np.unravel_index(best, total.shape)
        moves = [(layer, int(option))]
        if second != layer:
            moves.append((int(second), int(second_option)))
        return moves
