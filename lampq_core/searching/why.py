"""Why each layer has its width: what the next narrower and the next wider option would cost and save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.interaction import Interaction
from lampq.core.searching.superposition import Explanation, explain
from lampq.core.values.errors import RecordError
from lampq.core.values.option_order import cover_table, next_options
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Leaving a plan in one layer, together with those tied to it.

    Attributes:
        option: Index of the option taken instead.
        damage: Change of the predicted damage, nats; negative saves.
        size_bytes: Change in stored bytes.
        bits: Change in weight bits over all weights.
        fits: Whether the changed plan keeps every limit.
    """

    option: int
    damage: float
    size_bytes: int
    bits: int
    fits: bool


def next_changes(
    profile: Profile,
    problem: Problem,
    choice: np.ndarray,
    interaction: Interaction | None = None,
    *,
    most_damage: float = np.inf,
    most_bytes: int | None = None,
) -> list[list[Change]]:
    """For each layer the changes to the next narrower and the next wider options it may take.

    Args:
        profile: L layers, J options.
        problem: Damage, limits, ties and pins.
        choice: The plan, shape (L,).
        interaction: Damage with interactions; None adds up the damage of the layers.
        most_damage: A limit on the damage of the whole plan, nats.
        most_bytes: A limit on the bytes of the whole file, what layers share counted as the changed plan needs it;
            None leaves bytes to the limits of the problem, which are sums over the layers.

    Raises:
        RecordError: The choice breaks a tie, or takes an option that is not allowed or not measured.
    """
    if interaction is None:
        explanation, predicted = _additive(problem, choice), problem.objective(choice)
    else:
        explanation, predicted = explain(interaction, problem, choice), float(interaction.predict(choice))
    groups = problem.reduced().groups
    layers = np.arange(len(choice))
    stored = profile.stored_bytes - profile.stored_bytes[layers, choice][:, None]
    bits = profile.code_bits - profile.code_bits[layers, choice][:, None]
    stored, bits = _over_groups(stored, groups), _over_groups(bits, groups)
    known = np.isfinite(explanation.damage)
    fits = explanation.fits & (predicted + explanation.damage <= most_damage)
    covers = cover_table(profile.options)
    room = None if most_bytes is None else most_bytes - profile.total_bytes(choice)
    shared = _Shared(profile, choice)
    changes = []
    for layer, at in enumerate(choice.tolist()):
        narrower, wider = next_options(covers, known[layer], at)
        changes.append(
            [
                Change(
                    option=option,
                    damage=float(explanation.damage[layer, option]),
                    size_bytes=int(stored[layer, option]),
                    bits=int(bits[layer, option]),
                    fits=bool(
                        fits[layer, option]
                        and (
                            room is None
                            or stored[layer, option] + shared.change(groups == groups[layer], option) <= room
                        )
                    ),
                )
                for option in (*narrower, *wider)
            ]
        )
    return changes


class _Shared:
    """What layers share in a file, and how it changes with a plan.

    Args:
        profile: L layers, J options, K shared parts.
        choice: The plan, shape (L,).
    """

    def __init__(self, profile: Profile, choice: np.ndarray) -> None:
        self._sizes, self._shares = profile.array("shared_bytes"), profile.array("shares")
        self._choice = choice
        if self._shares is not None:
            # How many layers need each part.
            self._users = self._shares[np.arange(len(choice)), choice].astype(np.int64).sum(axis=0)

    def change(self, members: np.ndarray, option: int) -> int:
        """Bytes more with some layers, bool of shape (L,), at another option."""
        if self._sizes is None or self._shares is None:
            return 0
        rows = np.flatnonzero(members)
        before, after = self._shares[rows, self._choice[rows]], self._shares[rows, option]
        users = self._users + (after.astype(np.int64) - before).sum(axis=0)
        return int(self._sizes @ (users > 0)) - int(self._sizes @ (self._users > 0))


def sentences(profile: Profile, changes: Sequence[Sequence[Change]]) -> list[str]:
    """One sentence per layer, as plans carry them."""
    return ["; ".join(_clause(profile, change) for change in layer) for layer in changes]


def _clause(profile: Profile, change: Change) -> str:
    verb = "adds" if change.damage > 0 else "saves"
    sign = "less" if change.size_bytes < 0 else "more"
    over = "" if change.fits else ", over a limit"
    return (
        f"{profile.option_text(change.option)} {verb} {abs(change.damage):.2e} for "
        f"{abs(change.size_bytes):,} bytes {sign}{over}"
    )


def _additive(problem: Problem, choice: np.ndarray) -> Explanation:
    """The explanation where damages add up; `alone` is a layer's own damage and nothing is shared."""
    reduction = problem.reduced()
    groups, small = reduction.groups, reduction.problem
    leaders = choice[np.unique(groups, return_index=True)[1]]
    rows = np.arange(len(leaders))
    if (choice != leaders[groups]).any() or not np.isfinite(small.cost[rows, leaders]).all():
        raise RecordError("the plan to explain breaks a tie, or takes an option that is not allowed")
    cost = np.where(np.isfinite(small.cost), small.cost, np.nan) * small.scale
    use = small.resources - small.resources[:, rows, leaders][:, :, None]
    room = small.limits - small.usage(leaders)
    fits = np.isfinite(cost) & (use <= room[:, None, None]).all(axis=0)
    layers = np.arange(len(choice))
    return Explanation(
        damage=(cost - cost[rows, leaders][:, None])[groups],
        use=use[:, groups],
        fits=fits[groups],
        alone=problem.cost[layers, choice] * problem.scale,
        shared=np.zeros(len(choice)),
    )


def _over_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The sum over the layers tied to each layer, shape (L, J)."""
    total = np.zeros((int(groups.max()) + 1, values.shape[1]), dtype=values.dtype)
    np.add.at(total, groups, values)
    return total[groups]
