"""Evaluation and inspection of models with several outputs."""

import json

import numpy as np
import pytest
from two_inputs_model import TwoInputsModel, samples

import lampq
from lampq.core.measuring.measure import quantized_weights
from lampq.core.readouts.comparison import changed_share, compare_heads
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import Head, HeadChoice


@pytest.fixture
def models():
    """A model, and the same with coarse weights."""
    model = TwoInputsModel()
    return model, model.with_weights(quantized_weights(model, dict.fromkeys(("head", "boxes", "embed"), 2)))


def test_damage_is_told_output_by_output_and_adds_up(models):
    model, coarse = models
    found = lampq.evaluate(coarse, samples(), reference=model)
    assert [(head.name, head.role) for head in found.heads] == [
        ("logits", "classes"),
        ("pred_boxes", "values"),
        ("text_embeds", "direction"),
    ]
    assert sum(head.kl for head in found.heads) == pytest.approx(found.kl)
    logits, boxes, embeds = found.heads
    before, after = (np.asarray(m.run(samples())["logits"]).argmax(axis=1) for m in models)
    assert logits.agreement == pytest.approx((before == after).mean()) == found.agreement
    assert (logits.cosine, boxes.agreement) == (None, None)
    for head in (boxes, embeds):
        one, other = (m.run(samples())[head.name].reshape(12, -1).astype(float) for m in models)
        cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert head.cosine == pytest.approx(cosine.mean())
        assert head.relative_error == pytest.approx(np.linalg.norm(other - one) / np.linalg.norm(one))
    json.dumps(found.to_json())


def test_a_weight_counts_in_the_part_of_its_output(models):
    choice = [HeadChoice(name="pred_boxes", role="values", weight=3.0)]
    plain, heavy = (
        lampq.evaluate(coarse, samples(), reference=model)
        for model, coarse in (models, [m.with_heads(choice) for m in models])
    )
    assert heavy.heads[1].kl == pytest.approx(3 * plain.heads[1].kl)


def test_labels_without_a_lone_output_of_classes_are_a_note(models):
    model, _ = models
    labels = np.zeros(12, int)
    assert lampq.evaluate(model, samples(), labels).top1 is not None
    none = model.with_heads([HeadChoice(name="logits", role="ignore")])
    found = lampq.evaluate(none, samples(), labels)
    assert found.top1 is None
    assert found.notes == ("labels are left out: 0 outputs name classes, and labels go with one",)
    each = model.with_heads(
        [HeadChoice(name="logits", role="ignore"), HeadChoice(name="pred_boxes", role="classes")]
    )
    assert "a class for each position" in lampq.evaluate(each, samples(), labels).notes[0]


def test_labels_that_the_model_has_no_class_for_stay_an_error(models):
    with pytest.raises(AdapterError, match="label 7, the model only 5 classes"):
        lampq.evaluate(models[0], samples(), np.full(12, 7))


def test_no_judged_output_is_told_in_a_line(models):
    names = ("logits", "pred_boxes", "text_embeds")
    silent = models[0].with_heads([HeadChoice(name=name, role="ignore") for name in names])
    with pytest.raises(AdapterError, match="has no output to judge") as caught:
        lampq.profile(silent, samples())
    assert "\n" not in str(caught.value)
    assert lampq.profile(silent, bits=(2, 4)).heads == ()


def test_positions_that_do_not_count_change_nothing():
    before = {"a": np.array([[0, 1, -1], [2, -1, -1]])}
    after = {"a": np.array([[0, 2, 5], [2, 1, 1]])}
    assert changed_share(before, after) == pytest.approx(1 / 3)
    assert changed_share({"a": np.array([[-1]])}, {"a": np.array([[0]])}) == 0


def test_masked_values_are_compared_where_they_count():
    rng = np.random.default_rng(0)
    head = Head(name="states", role="values", mask="mask")
    inputs = Batch.of({"mask": np.array([[1, 1, 0], [1, 0, 0]])})
    reference = Batch.of({"states": rng.normal(size=(2, 3, 4)).astype(np.float32)})
    other = reference["states"].copy()
    other[0, 2] += 100
    readout = Readout.fit([head], reference, inputs)
    (same,) = compare_heads(readout, readout.reference(reference, inputs), Batch.of({"states": other}))
    assert (same.kl, same.relative_error) == (0, 0)
    assert same.cosine == pytest.approx(1)


def test_the_empirical_fisher_information_needs_a_lone_output_of_classes(models):
    with pytest.raises(
        AdapterError, match=r"one output that names a class for each sample; judged are logits \(classes\)"
    ):
        lampq.profile(models[0], samples(), bits=(2, 4), fisher="empirical", labels=np.zeros(12, int))


def test_profiles_reasons_and_comparisons_name_several_outputs(models):
    profile = lampq.profile(models[0], samples(), bits=(2, 4, 8), fisher_draws=0)
    outputs = {"logits": "classes", "pred_boxes": "values", "text_embeds": "direction"}
    assert profile.provenance["outputs"] == outputs
    plan = lampq.plan(profile, average_bits=4)
    assert lampq.why(plan, profile).facts["judged outputs"] == outputs
    totals = lampq.compare([plan, plan]).totals
    assert totals["judged outputs"] == ("logits classes, pred_boxes values, text_embeds direction",) * 2


def test_the_report_names_several_outputs(models, tmp_path):
    profile = lampq.profile(models[0], samples(), bits=(2, 4, 8), fisher_draws=0)
    lampq.report(lampq.plan(profile, average_bits=4), tmp_path / "r.html", profile=profile)
    assert "pred_boxes" in (tmp_path / "r.html").read_text()


def test_inspect_lists_inputs_outputs_and_what_is_covered(models, monkeypatch):
    monkeypatch.setattr("lampq.adapters.read", lambda path: models[0])
    found = lampq.inspect("two_inputs.numpy", [HeadChoice(name="logits", role="ignore")])
    assert found.facts["inputs"] == ["pixels float32[?x8]", "text float32[?x4]"]
    assert [(head.name, head.role) for head in found.heads] == [
        ("logits", "ignore"),
        ("pred_boxes", "values"),
        ("text_embeds", "direction"),
        ("count", "ignore"),
    ]
    assert found.facts["coverage"].startswith("73.7%: 1,120 of 1,520 bytes")
    assert found.facts["left alone"] == {"too small": 2, "a table of positions": 1}
    assert found.to_json()["heads"][2]["reason"] == "normalised to unit length"


def test_outputs_are_judged_as_the_reference_says(models):
    model, coarse = models
    choice = [HeadChoice(name="pred_boxes", role="ignore")]
    found = lampq.evaluate(coarse, samples(), reference=model.with_heads(choice))
    assert [head.name for head in found.heads] == ["logits", "text_embeds"]


def test_outputs_that_are_not_finite_are_named(models):
    broken = models[0].with_weights({"boxes": np.full((12, 8), np.nan)})
    with pytest.raises(RecordError, match="the model gives NaN or infinite values in output pred_boxes"):
        lampq.evaluate(broken, samples(), reference=models[0])
