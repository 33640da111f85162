import pytest
import torch

from sppnet.detect import PostOptions
from sppnet.detect.postprocess import at_threshold
from sppnet.detect.suppression import merge, without_repeats
from sppnet.structures import Boxes, Detections, ImageSize

SIZE = ImageSize(100, 100)
NAMES = ("a", "b")


def found(rows, scores, labels):
    boxes = Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), SIZE)
    return Detections(boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), NAMES)


def test_one_answer_an_object():
    rows = [[0, 0, 40, 40], [1, 1, 41, 41], [5, 5, 20, 20], [5, 5, 20, 20], [60, 60, 90, 90]]
    # The second is the first again, of another class; the third lies in the first and is of its class;
    # the fourth lies in it too but is of another class, which may be so.
    some = without_repeats(found(rows, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 0, 1, 0]), PostOptions())
    assert [round(s, 1) for s in some.scores.tolist()] == [0.9, 0.6, 0.5]


def test_nothing_stays_nothing():
    assert len(without_repeats(Detections.empty(SIZE, NAMES), PostOptions())) == 0


def test_merging_keeps_classes_apart_and_the_best_first():
    rows = torch.tensor([[0.0, 0, 40, 40], [2, 0, 42, 40], [0, 0, 40, 40], [60, 60, 90, 90]])
    merged = merge(
        Boxes(rows, SIZE),
        torch.tensor([0.6, 0.9, 0.7, 0.8]).logit(),
        torch.tensor([0, 0, 1, 1]),
        NAMES,
        PostOptions(nms=0.5, vote=1.0),
    )
    assert merged.labels.tolist() == [0, 1, 1]
    assert merged.boxes.xyxy[0].tolist() == [2, 0, 42, 40]
    voted = merge(
        Boxes(rows, SIZE),
        torch.tensor([0.6, 0.9, 0.7, 0.8]).logit(),
        torch.tensor([0, 0, 1, 1]),
        NAMES,
        PostOptions(nms=0.5, vote=0.5, per_class=1),
    )
    assert voted.labels.tolist() == [0, 1]
    assert 0 < float(voted.boxes.xyxy[0, 0]) < 2


def test_a_threshold_leaves_one_answer_an_object_and_0_the_ranked_list():
    rows = [[0, 0, 40, 40], [1, 1, 41, 41], [60, 60, 90, 90]]
    every = found(rows, [0.9, 0.8, 0.1], [0, 1, 0])
    assert torch.equal(at_threshold(every, 0.0, PostOptions()).scores, every.scores)
    assert at_threshold(every, 0.05, PostOptions()).scores.tolist() == pytest.approx([0.9, 0.1])
    assert at_threshold(every, 0.5, PostOptions()).scores.tolist() == pytest.approx([0.9])
    # What lies below the threshold hides nothing: the weaker answer alone is shown.
    assert at_threshold(every[1:], 0.5, PostOptions()).labels.tolist() == [1]
