"""All judged outputs of a model together: sums, notes, and what cannot be judged."""

import pickle

import numpy as np
import pytest
from readout_cases import joint, lone

from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import Head


def test_the_damage_of_a_model_is_the_weighted_sum_of_that_of_its_heads():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    damage = readout.damage(readout.reference(one, masks), other)
    parts = []
    for head in heads:
        alone = Readout.fit(
            (Head(name=head.name, role=head.role, axis=head.axis, mask=head.mask),), one, masks
        )
        parts.append(head.weight * alone.damage(alone.reference(one, masks), other))
    np.testing.assert_allclose(damage, np.sum(parts, axis=0))
    assert damage.shape == (5,) and readout.notes == ()


def test_an_expansion_around_other_outputs_is_that_of_the_joint_damage():
    heads, one, centre, masks = joint(1)
    readout = Readout.fit(heads, one, masks)
    reference, around = readout.reference(one, masks), readout.reference(centre, masks)
    step = joint(2)[1].map(lambda array: array * np.float32(1e-3))
    embedding, linear = readout.embedding(around), readout.linear(reference, around)
    mean = {
        s: readout.damage(reference, centre.plus(step.map(lambda a, s=s: s * a))).mean() for s in (-1, 0, 1)
    }
    np.testing.assert_allclose(linear(step), (mean[1] - mean[-1]) / 2, rtol=1e-3)
    itself = np.mean(
        [readout.damage(around, centre.plus(step.map(lambda a, s=s: s * a))).mean() for s in (-1, 1)]
    )
    column = embedding(step)
    assert column.dtype == np.float32 and column.shape == (embedding.size,) == embedding.importance.shape
    np.testing.assert_allclose(np.square(column.astype(np.float64)).sum(), itself, rtol=1e-2)
    np.testing.assert_allclose(embedding.importance.sum(), 5 * (2 + 1 + 0.5 + 1 + 1))


def test_probes_of_all_heads_together_agree_with_the_embedding():
    heads, one, step, masks = joint(3)
    readout = Readout.fit(heads, one, masks)
    reference = readout.reference(one, masks)
    draws, total = 600, 0.0
    for vectors in readout.directions(reference, Draws(labels="probe", count=draws, seed=0)):
        for group, moved in zip(vectors.groups, step.groups, strict=True):
            along = sum(
                (group[name] * moved[name]).reshape(len(moved[name]), -1).sum(axis=1) for name in group
            )
            total += np.square(along).sum()
    second = np.square(readout.embedding(reference)(step).astype(np.float64)).sum()
    np.testing.assert_allclose(total / (2 * one.samples), second, rtol=0.15)


def test_weights_of_a_head_scale_its_directions():
    batch = lone()[1]
    one, four = (Readout.fit((Head(name="y", role="classes", weight=w),), batch, None) for w in (1, 4))
    for labels in ("exact", "probe"):
        pairs = zip(
            one.directions(batch, Draws(labels=labels)),
            four.directions(batch, Draws(labels=labels)),
            strict=True,
        )
        for single, double in pairs:
            np.testing.assert_allclose(2 * single["y"], double["y"])


def test_a_head_that_never_moves_is_left_out_with_a_note():
    rng = np.random.default_rng(0)
    outputs = Batch.of({"flat": np.ones((3, 2), np.float32), "y": rng.normal(size=(3, 4)).astype(np.float32)})
    heads = (Head(name="flat", role="values"), Head(name="y", role="classes"))
    readout = Readout.fit(heads, outputs, None)
    assert [head.name for head in readout.heads] == ["y"]
    assert readout.notes == ("output flat is constant over all samples; it is not judged",)
    with pytest.raises(RecordError, match="output flat is constant over all samples"):
        Readout.fit(heads[:1], outputs, None)


def test_infinite_logits_are_counted_in_a_note():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    heads = (Head(name="y", role="classes"),)
    assert Readout.fit(heads, Batch.of({"y": logits}), None).notes == ()
    logits[:, 3] = -np.inf
    (note,) = Readout.fit(heads, Batch.of({"y": logits}), None).notes
    assert note.startswith("3 of 12 values of output y are infinite in the float model")


def test_a_head_that_is_no_number_is_left_out_with_a_note():
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    broken = values.copy()
    broken[1, 2] = np.nan
    heads = (Head(name="a", role="values"), Head(name="y", role="classes"))
    readout = Readout.fit(heads, Batch.of({"a": broken, "y": values}), None)
    assert readout.notes == (
        "output a is NaN or infinite in the float model (first for sample 1); it is not judged",
    )
    with pytest.raises(RecordError, match=r"output y is NaN .* sample 1"):
        Readout.fit(heads[1:], Batch.of({"a": values, "y": broken}), None)


@pytest.mark.parametrize(
    ("head", "shape", "message"),
    [
        (Head(name="y", role="classes"), (3, 1), "one entry on axis -1: no classes"),
        (Head(name="y", role="classes"), (3,), "one entry on axis -1: no classes"),
        (Head(name="y", role="classes", axis=1), (3, 1, 4), "one entry on axis 1"),
        (Head(name="y", role="values", axis=3), (3, 4), "no axis 3"),
        (Head(name="y", role="values", axis=-2), (3, 4), "no axis -2"),
        (Head(name="y", role="values"), (3, 0), "nothing to judge"),
        (
            Head(name="y", role="values", mask="m"),
            (3, 5, 2),
            r"mask 'm' has shape \(3, 4\); output y of shape \(3, 5, 2\) has 5 positions",
        ),
        (Head(name="y", role="values", mask="n"), (3, 4, 2), "the input 'n', which is missing"),
        (Head(name="z", role="values"), (3, 4), "no array is called 'z'"),
        (Head(name="y", role="ignore"), (3, 4), "no output is judged"),
    ],
)
def test_a_role_that_cannot_be_is_refused_in_one_line(head, shape, message):
    outputs = Batch.of(np.random.default_rng(0).normal(size=shape).astype(np.float32), name="y")
    with pytest.raises(RecordError, match=message) as caught:
        Readout.fit((head,), outputs, Batch.of(np.ones((3, 4)), name="m"))
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_not_judged():
    with pytest.raises(RecordError, match=r"output y of shape \(3,\) holds int64"):
        Readout.fit((Head(name="y", role="values"),), Batch.of(np.arange(3), name="y"), None)


def test_an_output_and_its_mask_have_two_names():
    outputs = Batch.of(np.random.default_rng(0).normal(size=(3, 4, 2)), name="m")
    with pytest.raises(RecordError, match="'m' is the name of an output and of the input"):
        Readout.fit((Head(name="m", role="values", mask="m"),), outputs, Batch.of(np.ones((3, 4)), name="m"))


def test_masks_of_other_samples_are_checked_too():
    rng = np.random.default_rng(0)
    outputs, masks = Batch.of(rng.normal(size=(3, 4, 2)), name="y"), Batch.of(np.ones((3, 4)), name="m")
    readout = Readout.fit((Head(name="y", role="values", mask="m"),), outputs, masks)
    with pytest.raises(RecordError, match="mask 'm' of output y is missing"):
        readout.damage(outputs, outputs)
    wrong = readout.reference(outputs, Batch.of(np.ones((3, 5)), name="m"))
    with pytest.raises(RecordError, match=r"mask 'm' has shape \(3, 5\)"):
        readout.damage(wrong, outputs)


def test_outputs_that_are_no_numbers_are_named():
    readout, batch = lone()
    assert readout.check(batch, "the model") is batch
    broken = batch["y"].copy()
    broken[2, 0] = np.nan
    with pytest.raises(
        RecordError, match=r"it gives NaN or infinite values in output y \(first for sample 2\)"
    ):
        readout.check(Batch.of(broken, name="y"), "it")
    broken[2] = -np.inf
    with pytest.raises(RecordError, match="sample 2"):
        readout.check(Batch.of(broken, name="y"), "it")
    broken[2, 1] = 0
    readout.check(Batch.of(broken, name="y"), "an impossible class")


def test_outputs_of_another_shape_are_refused():
    readout, batch = lone()
    with pytest.raises(RecordError, match="outputs of 2 samples do not fit a reference of 4"):
        readout.damage(batch, batch.take([0, 1]))
    with pytest.raises(RecordError, match=r"output y has shape \(4, 4\); expected \(4, 5\)"):
        readout.damage(batch, batch.map(lambda array: array[:, :4]))
    with pytest.raises(RecordError, match="no output is called 'y'"):
        readout.damage(batch, Batch.of(batch["y"], name="x"))
    embedding = readout.embedding(batch)
    with pytest.raises(RecordError, match=r"has shape \(4, 4\)"):
        embedding(batch.map(lambda array: array[:, :4]))
    with pytest.raises(RecordError, match="not finite"):
        embedding(batch.map(lambda array: np.full_like(array, np.inf)))


def test_decisions_are_the_likeliest_class_and_yes_or_no_where_positions_count():
    heads, one, _, masks = joint()
    readout = Readout.fit(heads, one, masks)
    decisions = readout.decisions(one)
    assert set(decisions) == {"c", "p", "o"}
    np.testing.assert_array_equal(decisions["c"][0], [*one.groups[0]["c"][0].argmax(axis=0), -1, -1])
    np.testing.assert_array_equal(decisions["c"][4], one.groups[1]["c"][1].argmax(axis=0))
    logits = one.groups[0]["o"]
    np.testing.assert_array_equal(decisions["o"][:3], logits > 0)


@pytest.mark.parametrize("role", ["classes", "probabilities"])
def test_decisions_under_a_mask_are_told(role):
    rng = np.random.default_rng(0)
    outputs = Batch.of(rng.normal(size=(2, 3, 4)).astype(np.float32), name="y")
    masks = Batch.of(np.array([[1, 1, 0], [1, 0, 0]]), name="m")
    readout = Readout.fit((Head(name="y", role=role, mask="m"),), outputs, masks)
    free = readout.decisions(outputs)["y"]
    told = readout.decisions(readout.reference(outputs, masks))["y"]
    ignored = masks["m"] == 0
    assert (told[ignored] == -1).all() and (told[~ignored] == free[~ignored]).all() and (free >= 0).all()


def test_a_signature_tells_samples_apart_whatever_else_is_in_the_batch():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    signature = readout.signature(one)
    assert signature.shape == (5, 8) and signature.dtype == np.float32
    np.testing.assert_array_equal(readout.signature(one.take([1, 4])), signature[[1, 4]])
    assert not np.isclose(readout.signature(other), signature).all(axis=1).any()


def test_large_outputs_are_judged_a_few_samples_at_a_time(monkeypatch):
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    reference = readout.reference(one, masks)

    def figures():
        embedding, linear = readout.embedding(reference), readout.linear(reference, other)
        return readout.damage(reference, other), embedding(other), embedding.importance, linear(one)

    whole = figures()
    monkeypatch.setattr("lampq.core.readouts.rows._BLOCK", 10)
    for blocks, all_at_once in zip(figures(), whole, strict=True):
        np.testing.assert_allclose(blocks, all_at_once, rtol=1e-12)


def test_a_readout_goes_to_other_processes():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    copy = pickle.loads(pickle.dumps(readout))
    reference = readout.reference(one, masks)
    np.testing.assert_array_equal(copy.damage(reference, other), readout.damage(reference, other))
