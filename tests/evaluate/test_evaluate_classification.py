from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from sppnet.errors import UserError
from sppnet.evaluate import classification_metrics, mean_average_precision


def names_of(count):
    return tuple(f"class {number}" for number in range(count))


@pytest.mark.parametrize("classes", [2, 3, 5, 9])
def test_equals_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 200)])
    scores = rng.normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += 1
    metrics = classification_metrics(torch.tensor(scores), torch.tensor(labels), names_of(classes))
    guesses = scores.argmax(1)
    assert metrics["accuracy"] == pytest.approx((guesses == labels).mean())
    assert metrics["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert metrics["confusion"] == confusion_matrix(labels, guesses).tolist()
    assert metrics["images"] == len(labels)
    top5 = 1.0 if classes <= 5 else top_k_accuracy_score(labels, scores, k=5)
    assert metrics["top5"] == pytest.approx(top5)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_equals_plain_counting(data):
    """The few score values give many ties, in which the class with the smaller number ranks first."""
    classes, count = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 12))
    row = st.lists(st.integers(-1, 1), min_size=classes, max_size=classes)
    scores = data.draw(st.lists(row, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    metrics = classification_metrics(torch.tensor(scores).float(), torch.tensor(labels), names_of(classes))
    ranks = []
    for values, label in zip(scores, labels, strict=True):
        ahead = [k for k, v in enumerate(values) if v > values[label] or (v == values[label] and k < label)]
        ranks.append(len(ahead))
    assert metrics["accuracy"] == pytest.approx(ranks.count(0) / count)
    assert metrics["top5"] == pytest.approx(sum(rank < 5 for rank in ranks) / count)
    accuracies = []
    for label, name in enumerate(names_of(classes)):
        own = [rank for rank, other in zip(ranks, labels, strict=True) if other == label]
        assert metrics["per_class"][name]["images"] == len(own)
        accuracy = own.count(0) / len(own) if own else None
        assert metrics["per_class"][name]["accuracy"] == accuracy
        accuracies += [accuracy] if own else []
        assert sum(metrics["confusion"][label]) == len(own)
    assert metrics["mean_class_accuracy"] == pytest.approx(sum(accuracies) / len(accuracies))


def test_rows_of_the_confusion_matrix_are_true_classes():
    scores = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    metrics = classification_metrics(scores, torch.tensor([0, 0, 1]), ("ant", "bee"))
    assert metrics["confusion"] == [[0, 2], [0, 1]]


def plain_eleven_point(scores, relevant):
    ranked = [one for _, one in sorted(zip(scores, relevant, strict=True), key=lambda pair: -pair[0])]
    total = sum(ranked)
    best = []
    for tenth in range(11):
        precisions = [0.0]
        for end in range(1, len(ranked) + 1):
            hits = sum(ranked[:end])
            if 10 * hits >= tenth * total:
                precisions.append(hits / end)
        best.append(max(precisions))
    return sum(best) / 11


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_mean_average_precision_equals_plain_loops(data):
    classes, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 15))

    def table(values):
        row = st.lists(values, min_size=classes, max_size=classes)
        return data.draw(st.lists(row, min_size=count, max_size=count))

    scores, relevant = table(st.integers(-3, 3)), table(st.booleans())
    columns = [
        plain_eleven_point([row[k] for row in scores], [row[k] for row in relevant])
        for k in range(classes)
        if any(row[k] for row in relevant)
    ]
    given_scores, given_relevant = torch.tensor(scores).float(), torch.tensor(relevant)
    if columns:
        expected = sum(columns) / len(columns)
        assert mean_average_precision(given_scores, given_relevant) == pytest.approx(expected)
    else:
        with pytest.raises(UserError, match="at least one True"):
            mean_average_precision(given_scores, given_relevant)


def test_mean_average_precision_of_perfect_and_of_reversed_rankings():
    relevant = torch.tensor([[True], [False], [False], [False]])
    ranks = torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    assert mean_average_precision(ranks, relevant) == 1.0
    assert mean_average_precision(-ranks, relevant) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("scores", "labels", "names", "where"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), ("a", "b"), "scores"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), ("a", "b"), "scores"),
        (torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), torch.tensor([0, 1]), ("a", "b"), r"scores\[1\]"),
        (torch.zeros(2, 2), torch.tensor([0]), ("a", "b"), "labels"),
        (torch.zeros(2, 2), torch.tensor([0.0, 1.0]), ("a", "b"), "labels"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), ("a", "b"), r"labels\[1\]"),
        (torch.zeros(2, 2), torch.tensor([-1, 0]), ("a", "b"), r"labels\[0\]"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), ("a",), "names"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), ("a", "a"), "names"),
    ],
)
def test_invalid_arguments_raise_user_errors(scores, labels, names, where):
    with pytest.raises(UserError, match=where):
        classification_metrics(scores, labels, names)


def test_invalid_relevance_raises_user_errors():
    with pytest.raises(UserError, match="relevant"):
        mean_average_precision(torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(UserError, match="relevant"):
        mean_average_precision(torch.zeros(2, 2), torch.ones(2, 2))
