"""From the best last state of a staged search back to the options that led to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def options_taken(
    parents: Sequence[np.ndarray], decisions: Sequence[np.ndarray], goal: tuple[int, int, int, int]
) -> np.ndarray:
    """The options of a state, latest first, shape (n,), int64.

    Args:
        parents: For each stage the state before it of every state.
        decisions: For each stage the option that every state took there, -1 for none.
        goal: Number of stages passed, the state, and two more options that complete it, -1 for none.
    """
    stage, state, option, extra = goal
    options = [extra, option]
    while stage > 0:
        stage -= 1
        options.append(int(decisions[stage][state]))
        state = int(parents[stage][state])
    return np.array([option for option in options if option >= 0], dtype=np.int64)
