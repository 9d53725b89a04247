"""Metrics of tasks against the numbers of other libraries, or closed forms."""

import functools
import math

import numpy as np
import pytest
import torch
from plugins import install
from sklearn import metrics as sk

from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, LampqError, RecordError
from lampq.core.values.head import Head
from lampq.metrics import METRICS, Case, Measured, Metric, ctc, metric
from lampq.metrics.edit_distance import edit_distance

CLASSES = Head(name="logits", role="classes")
PIXELS = Head(name="logits", role="classes", axis=1)


def case(logits, head=CLASSES, reference=None, inputs=None, **known):
    """A case of one output."""
    return Case(
        outputs=Batch.of({"logits": logits}),
        reference=None if reference is None else Batch.of({"logits": reference}),
        heads=(head,),
        inputs=Batch.of(inputs or {"x": np.zeros((len(logits), 1))}),
        **known,
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("most", [1, 5])
def test_accuracy_is_that_of_scikit_learn(rng, most):
    logits, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    expected = sk.top_k_accuracy_score(labels, logits, k=most, labels=range(12))
    assert metric(f"top{most}")(case(logits, labels=labels)).value == pytest.approx(expected)


def test_without_labels_the_float_models_classes_are_right(rng):
    logits = rng.normal(size=(50, 7))
    other = logits + rng.normal(size=logits.shape)
    agreement = (logits.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert metric("top1")(case(other, reference=logits)).value == pytest.approx(agreement)


def test_mean_iou_is_scikit_learns_jaccard_score(rng):
    logits, masks = rng.normal(size=(6, 5, 8, 9)), rng.integers(0, 4, (6, 8, 9))
    expected = sk.jaccard_score(masks.ravel(), logits.argmax(axis=1).ravel(), average="macro")
    assert metric("miou")(case(logits, PIXELS, truth=masks)).value == pytest.approx(expected)


def test_pixels_of_class_255_do_not_count_and_outputs_are_met_at_the_size_of_masks():
    logits = np.zeros((1, 2, 2, 2))
    logits[0, 1, 0] = 1
    mask = np.repeat(np.repeat([[1, 1], [0, 0]], 2, axis=0), 2, axis=1)
    assert metric("miou")(case(logits, PIXELS, truth=[mask])).value == 1
    mask[0, 0] = 0
    assert metric("miou")(case(logits, PIXELS, truth=[mask])).value == pytest.approx((8 / 9 + 7 / 8) / 2)
    mask[0, 0] = 255
    assert metric("miou")(case(logits, PIXELS, truth=[mask])).value == 1


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([np.full((2, 2), 7)], "mask 0 has class 7, the model only 2 classes"),
        ([np.zeros((2, 2))], "holds float64"),
        ([], "one mask of classes for each of 1 samples"),
        ({"images": []}, "one mask of classes for each of 1 samples"),
        ([np.full((2, 2), 255)], "no pixel counts"),
    ],
)
def test_masks_that_cannot_be_are_refused(truth, message):
    with pytest.raises(RecordError, match=message):
        metric("miou")(case(np.zeros((1, 2, 2, 2)), PIXELS, truth=truth))


def test_cosine_is_that_of_averaged_tokens(rng):
    head = Head(name="logits", role="values", mask="mask")
    one, other = rng.normal(size=(2, 4, 3, 6))
    mask = np.array([[1, 1, 0]] * 4)
    found = metric("cosine")(case(one, head, reference=other, inputs={"mask": mask})).value
    pooled = [torch.tensor(array[:, :2].mean(axis=1)) for array in (one, other)]
    assert found == pytest.approx(torch.nn.functional.cosine_similarity(*pooled).mean().item())


def test_recall_counts_samples_that_find_themselves():
    head = Head(name="logits", role="direction")
    reference = np.eye(4)
    embeddings = np.eye(4)[[0, 1, 2, 2]]
    assert metric("recall1")(case(embeddings, head, reference=reference)).value == 0.75


def test_recall_of_two_outputs_goes_both_ways():
    heads = tuple(Head(name=name, role="direction") for name in ("image", "text"))
    outputs = Batch.of(
        {"image": np.eye(3), "text": np.eye(3)[[0, 0, 2]] + [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0]]}
    )
    inputs = Batch.of(np.zeros((3, 1)))
    found = metric("recall1")(Case(outputs=outputs, reference=outputs, heads=heads, inputs=inputs)).value
    similar = sk.pairwise.cosine_similarity(outputs["image"], outputs["text"])
    hits = [(similar.argmax(axis=axis) == range(3)).mean() for axis in (0, 1)]
    assert found == pytest.approx(np.mean(hits))


def slow_distance(one, other):
    @functools.cache
    def rest(i, j):
        if i == len(one) or j == len(other):
            return len(one) - i + len(other) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (one[i] != other[j]))

    return rest(0, 0)


def test_edit_distance_is_the_shortest_way(rng):
    for _ in range(30):
        one, other = (rng.integers(0, 4, rng.integers(0, 9)).tolist() for _ in range(2))
        assert edit_distance(one, other) == slow_distance(tuple(one), tuple(other))


def path(classes, count=5):
    return np.eye(count)[np.asarray(classes)]


def test_ctc_counts_errors_of_what_is_read():
    logits = path([[1, 1, 0, 1, 2, 2], [3, 0, 0, 3, 3, 4]])
    assert metric("ctc")(case(logits, truth=[[1, 1, 2], [3, 3, 4]])).value == 0
    assert metric("ctc")(case(logits, truth=[[1, 2], [3, 3, 1]])).value == pytest.approx(2 / 5)
    assert metric("ctc")(case(logits, reference=path([[1, 1, 0, 0, 2, 2], [3, 0, 0, 3, 3, 4]]))).value == 0.2
    named = ctc(blank=0, characters="_abcd")
    assert named(case(logits, truth=["aab", "cc"])).value == pytest.approx(1 / 5)
    assert ctc(blank=4)(case(path([[0, 0, 4, 0]]), truth=[[0, 0]])).value == 0


def test_tokens_that_do_not_count_are_not_read():
    head = Head(name="logits", role="classes", mask="mask")
    inputs = {"mask": np.array([[1, 1, 0]])}
    reference = path([[1, 2, 3]])
    assert metric("tokens")(case(path([[1, 2, 4]]), head, reference=reference, inputs=inputs)).value == 0
    assert metric("tokens")(case(path([[1, 4, 3]]), head, reference=reference, inputs=inputs)).value == 0.5


def test_reading_nothing_at_all_is_no_perfect_score():
    silent = path([[0, 0, 0]])
    with pytest.raises(RecordError, match="the float model reads no symbol in any sample"):
        metric("ctc")(case(silent, reference=silent))
    with pytest.raises(RecordError, match="takes a list of classes"):
        metric("ctc")(case(silent, truth=["abc"]))


def test_perplexity_is_that_of_torch(rng):
    logits, ids = rng.normal(size=(3, 6, 11)), rng.integers(0, 11, (3, 6))
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
    found = metric("perplexity")(case(logits, inputs={"input_ids": ids, "attention_mask": mask})).value
    targets = torch.tensor(np.where(mask, ids, -100))[:, 1:].reshape(-1)
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits)[:, :-1].reshape(-1, 11), targets)
    assert found == pytest.approx(math.exp(loss.item()))


def test_a_vocabulary_that_is_not_the_models_is_told():
    inputs = {"input_ids": np.array([[3, 12]])}
    with pytest.raises(
        RecordError, match="token 12, but the model predicts 11; the tokenizer belongs to another"
    ):
        metric("perplexity")(case(np.zeros((1, 2, 11)), inputs=inputs))


@pytest.mark.parametrize("value", [math.nan, math.inf, "good", None, np.zeros(2)])
def test_a_metric_that_is_no_finite_number_is_refused(value):
    with pytest.raises(RecordError, match="a metric is one finite number") as caught:
        metric(lambda case: value)(case(np.zeros((2, 3)), labels=np.zeros(2, int)))
    assert "\n" not in str(caught.value)


def test_functions_and_records_are_metrics():
    def error(case):
        return Measured(value=1.0, notes=("told",))

    error.higher_is_better = False
    own = metric(error)
    assert (own.name, own.higher_is_better) == ("error", False)
    assert own(case(np.zeros((1, 2)))).notes == ("told",)
    record = Metric(name="mine", measure=lambda case: 0.5)
    assert metric(record) is record


def test_a_metric_of_a_package_is_found_by_its_name(monkeypatch, tmp_path):
    source = "from lampq import Metric\nMINE = Metric(name='mine', measure=lambda case: 0.25, against=('inputs',))\n"
    entries = {"lampq.metrics": {"mine": "my_metric:MINE"}}
    install(monkeypatch, tmp_path, "lampq-mine", entries, {"my_metric": source})
    assert "mine" in METRICS.names()
    assert metric("mine")(case(np.zeros((1, 2)))).value == 0.25


def test_a_metric_of_a_file_is_a_function_or_a_record(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from lampq import Metric\n"
        "def half(case):\n    return 0.5\n"
        "WHOLE = Metric(name='whole', measure=lambda case: 1, against=('inputs',))\n"
    )
    assert metric(f"{file}:half")(case(np.zeros((1, 2)))).value == 0.5
    assert metric(f"{file}:WHOLE").name == "whole"
    with pytest.raises(AdapterError, match="has no other"):
        metric(f"{file}:other")


def test_names_of_no_metric_list_all():
    with pytest.raises(RecordError, match="metric 'magic' is none of top1, top5, map, map50, miou"):
        metric("magic")


@pytest.mark.parametrize("name", METRICS.loaded)
def test_every_metric_says_what_it_needs(name):
    head = Head(name="logits", role="direction")
    with pytest.raises(LampqError) as caught:
        metric(name)(case(np.zeros((1, 2)), head))
    assert "\n" not in str(caught.value)
