import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.detect import TargetOptions
from sppnet.detect.targets import choose_on_objects, class_overlaps, svm_targets
from sppnet.ops.boxes import iou
from sppnet.structures import Boxes, GroundTruth, ImageSize

SIZE = ImageSize(100, 100)
NAMES = ("a", "b")


def truth_of(rows, labels, difficult=None, crowd=None):
    no = [False] * len(rows)
    boxes = Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), SIZE)
    return GroundTruth(
        boxes,
        torch.tensor(labels, dtype=torch.int64),
        NAMES,
        torch.tensor(difficult or no),
        torch.tensor(crowd or no),
    )


def test_targets_by_overlap_class_by_class():
    truth = truth_of([[0, 0, 10, 10]], [0])
    windows = Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]]), SIZE)
    # IoU 1, 0.5 and 0 with the only object, which is of class a.
    assert svm_targets(windows, truth, TargetOptions()).tolist() == [[1, -1], [0, -1], [-1, -1]]


def test_difficult_objects_and_crowds_teach_nothing():
    windows = Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 40, 40]]), SIZE)
    hard = truth_of([[0, 0, 10, 10]], [0], difficult=[True])
    assert svm_targets(windows, hard, TargetOptions())[:, 0].tolist() == [0, -1]
    crowd = truth_of([[0, 0, 60, 60]], [0], crowd=[True])
    # Both lie in the crowd, however little of it they fill.
    assert svm_targets(windows, crowd, TargetOptions()).tolist() == [[0, -1], [0, -1]]


@given(st.integers(0, 40), st.integers(0, 6), st.integers(1, 4), st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_choices_are_few_an_object_and_overlap_enough(windows, objects, per_object, seed):
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(windows + objects, 2, generator=draw) * 40
    rows = torch.cat([low, low + 20 + torch.rand(windows + objects, 2, generator=draw) * 20], 1)
    boxes = Boxes(rows[:windows], SIZE)
    truth = truth_of(rows[windows:].tolist(), [0] * objects)
    for least, (chosen, owner) in (
        (0.5, choose_on_objects(boxes, truth, 0.5, per_object, draw)),
        (0.6, choose_on_objects(boxes, truth, 0.6, per_object, draw)),
    ):
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        if not objects or not windows:
            assert len(chosen) == 0
            continue
        overlaps = iou(boxes.xyxy, truth.boxes.xyxy)
        best, whose = overlaps.max(1)
        assert bool((best[chosen] >= least).all())
        counts = torch.bincount(whose[chosen], minlength=objects)
        able = torch.bincount(whose[best >= least], minlength=objects)
        assert torch.equal(counts, able.clamp(max=per_object))
        if owner is not None:
            assert torch.equal(owner, whose[chosen])


def test_crowds_do_not_count_as_overlap():
    truth = truth_of([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1], crowd=[True, False])
    boxes = Boxes(torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), SIZE)
    torch.testing.assert_close(class_overlaps(boxes, truth), torch.tensor([[0.0, 0], [0, 1]]))
