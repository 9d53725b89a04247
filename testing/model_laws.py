"""The laws of `lampq.core.measuring.model.Model`, for every format: run them over your own.

    import pytest
    from lampq.testing import model_laws

    @pytest.mark.parametrize("law", model_laws.laws(), ids=str)
    def test_my_format_keeps_to_the_laws(law, tmp_path):
        law(model_laws.Case(read=..., batch=..., ...))

or without pytest, all of them: `model_laws.check(case)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lampq.core.values.messages import reason
from lampq.testing import empty, files, inputs, outputs, records, runs, sweeps, taps, traces, weights
from lampq.testing.case import Case, LawError

__all__ = ["Case", "Law", "LawError", "check", "laws"]

_CHECKS: tuple[Callable[[Case], None], ...] = (
    records.a_digest_is_of_what_is_stored,
    records.layers_are_the_same_every_time,
    records.bytes_grow_with_bits,
    records.a_coding_is_a_variant,
    inputs.inputs_are_as_described,
    inputs.inputs_that_do_not_fit_are_refused,
    outputs.every_output_has_a_head,
    outputs.an_output_can_be_ignored,
    outputs.a_choice_changes_one_output,
    outputs.unknown_outputs_are_refused,
    runs.a_run_gives_the_judged_outputs,
    runs.samples_are_independent,
    runs.groups_keep_their_order,
    runs.a_run_can_be_repeated,
    weights.a_weight_is_a_copy,
    weights.a_variant_leaves_the_model_as_it_was,
    weights.stored_weights_change_nothing,
    weights.weights_that_do_not_fit_are_refused,
    sweeps.a_sweep_gives_what_runs_give,
    sweeps.a_sweep_starts_from_the_weights_of_its_model,
    sweeps.a_sweep_answers_before_it_draws_on,
    sweeps.an_empty_sweep_gives_nothing,
    taps.taps_fit_their_layers,
    taps.taps_count_every_sample_once,
    taps.positions_are_those_of_a_sample,
    taps.taps_see_new_weights,
    files.a_file_computes_what_its_plan_says,
    files.rounded_inputs_take_no_more_than_planned,
    files.a_variant_is_written_with_its_weights,
    files.layers_without_a_decision_stay_float,
    files.a_failed_write_leaves_nothing,
    traces.fisher_traces_agree_with_small_steps,
    empty.a_model_without_layers_answers,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One thing that a model keeps to.

    Attributes:
        name: What it is, as a sentence.
        check: Tries it on a case.
    """

    name: str
    check: Callable[[Case], None]

    def __call__(self, case: Case) -> None:
        """Try it on a case.

        Raises:
            LawError: The model does something else; one line.
        """
        try:
            self.check(case)
        except LawError as err:
            raise LawError(f"{self.name}: {err}") from err
        except Exception as err:
            raise LawError(f"{self.name}: {type(err).__name__}: {reason(err)}") from err

    def __str__(self) -> str:
        return self.name


def laws() -> tuple[Law, ...]:
    """All laws, from what a model says to what it writes."""
    return tuple(Law(name=check.__name__.replace("_", " "), check=check) for check in _CHECKS)


def check(case: Case) -> None:
    """Try all laws on a case.

    Raises:
        LawError: It breaks some; one line for each.
    """
    broken = []
    for law in laws():
        try:
            law(case)
        except LawError as err:
            broken.append(str(err))
    if broken:
        raise LawError("\n".join(broken))
