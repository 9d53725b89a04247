import numpy as np
import pytest
from records import make_profile

from lampq.core.allocating.predicted_damage import predicted_damage
from lampq.core.allocating.scores import automatic
from lampq.core.allocating.scores.fisher import fisher_scores
from lampq.core.allocating.scores.lampq import lampq_scores
from lampq.core.values.errors import RecordError
from lampq.core.values.recipe import Recipe


def test_fisher_score_is_half_the_mean_trace_times_the_error():
    profile = make_profile()
    expected = [
        [0.5 * layer.fisher / layer.size * error for error in errors]
        for layer, errors in zip(profile.layers, profile.weight_error, strict=True)
    ]
    np.testing.assert_allclose(fisher_scores(profile), expected)


def test_lampq_score_equals_the_formula_written_out():
    profile = make_profile()
    scores = lampq_scores(profile, Recipe(gamma=4.0, beta=2, probes=1))
    for kind in ("qkv", "head"):
        members = [i for i, layer in enumerate(profile.layers) if layer.kind == kind]
        damage = profile.kl[members[0], 0]
        alpha = damage / np.mean([profile.layers[i].fisher for i in members])
        for i in members:
            for j, bits in enumerate(range(2, 9)):
                omega = alpha * profile.layers[i].fisher
                assert scores[i, j] == pytest.approx(omega * 4.0 ** (2 - bits))


def test_lampq_scores_average_to_the_measured_damage_at_beta():
    profile = make_profile()
    scores = lampq_scores(profile, Recipe(probes=10))
    for kind in {layer.kind for layer in profile.layers}:
        members = [i for i, layer in enumerate(profile.layers) if layer.kind == kind]
        assert scores[members, 0].mean() == pytest.approx(profile.kl[members, 0].mean())


def test_a_type_without_damage_keeps_a_positive_scale():
    profile = make_profile()
    kl = profile.kl.copy()
    kl[0] = 0
    assert (lampq_scores(profile.with_tables(kl=kl))[0] > 0).all()


def test_damage_never_grows_with_the_width_and_repairs_are_named():
    profile = make_profile()
    kl = profile.kl.copy()
    kl[3, 4] = kl[3, 0] * 2
    smooth, repaired = predicted_damage(profile.with_tables(kl=kl), "kl")
    assert (np.diff(smooth, axis=1) <= 0).all()
    assert repaired == (profile.layers[3].name,)
    assert predicted_damage(profile, "kl")[1] == ()


@pytest.mark.parametrize("mode", ["lampq", "fisher", "kl"])
def test_modes_that_need_data_say_so(mode):
    with pytest.raises(RecordError, match="--data"):
        predicted_damage(make_profile(data=False), mode)


def test_the_automatic_mode_uses_the_best_measurement():
    assert automatic(make_profile()).name == "superposition"
    assert automatic(make_profile().with_tables(logit_delta=None)).name == "kl"
    assert automatic(make_profile().with_tables(logit_delta=None, kl=None)).name == "fisher"
    assert automatic(make_profile(data=False)).name == "error"


def test_relative_error_needs_no_data_and_ignores_the_scale_of_a_layer():
    scores, _ = predicted_damage(make_profile(data=False), "error")
    assert (scores[:, 0] < 0.2).all()
    assert (scores[:, 0] > 0.05).all()


def test_unknown_modes_are_refused():
    with pytest.raises(RecordError, match="magic"):
        predicted_damage(make_profile(), "magic")
