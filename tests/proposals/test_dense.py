import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.ops.boxes import iou
from sppnet.proposals import dense_windows, shapes_from_boxes
from sppnet.structures import Boxes, ImageSize

SIZE = ImageSize(200, 300)


def boxes_of(sides, size=SIZE):
    rows = [[20 + i, 30, 20 + i + w, 30 + h] for i, (h, w) in enumerate(sides)]
    return Boxes(torch.tensor(rows, dtype=torch.float32), size)


def test_every_training_box_is_fitted_by_a_shape():
    draw = torch.Generator().manual_seed(0)
    sides = (torch.rand(60, 2, generator=draw) * 90 + 10).tolist()
    shapes = shapes_from_boxes([boxes_of(sides)], [torch.ones(60)], overlap=0.7, most=60) * SIZE.short_side
    for height, width in sides:
        shared = torch.minimum(shapes, torch.tensor([height, width])).prod(1)
        fit = shared / (shapes.prod(1) + height * width - shared)
        assert float(fit.max()) >= 0.7


def test_shapes_are_relative_to_the_short_side():
    small = shapes_from_boxes([boxes_of([(20, 40)])], [torch.ones(1)])
    large = shapes_from_boxes([boxes_of([(40, 80)], ImageSize(400, 600))], [torch.ones(1)])
    torch.testing.assert_close(small, large)


def test_the_heaviest_shape_comes_first_and_cut_objects_do_not_count():
    inside = Boxes(torch.tensor([[50.0, 50, 70, 70], [50, 50, 150, 150]]), SIZE)
    cut = Boxes(torch.tensor([[0.0, 50, 5, 150]]), SIZE)
    shapes = shapes_from_boxes([inside, cut], [torch.tensor([1.0, 2.0]), torch.ones(1)], most=9)
    assert len(shapes) == 2
    assert float(shapes[0, 0]) == pytest.approx(0.5, rel=0.1)
    only_cut = shapes_from_boxes([cut], [torch.ones(1)])
    assert float(only_cut[0, 0]) > 5 * float(only_cut[0, 1])


def test_no_boxes_is_the_users_mistake():
    with pytest.raises(UserError, match="at least one box"):
        shapes_from_boxes([Boxes.empty(SIZE)], [torch.ones(0)])


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0.02, 2), st.floats(0.02, 2)), min_size=1, max_size=6),
    st.integers(1, 500),
)
@settings(deadline=None, max_examples=60)
def test_windows_lie_inside_are_few_enough_and_the_same_each_time(height, width, shapes, most):
    size = ImageSize(height, width)
    windows = dense_windows(size, torch.tensor(shapes), most=most)
    assert len(shapes) <= len(windows) <= max(most, len(shapes))
    assert float(windows.xyxy.min()) >= 0
    assert float(windows.xyxy[:, 2].max()) <= width
    assert float(windows.xyxy[:, 3].max()) <= height
    assert torch.equal(windows.xyxy, dense_windows(size, torch.tensor(shapes), most=most).xyxy)


def test_an_object_anywhere_has_a_window_close_to_it():
    shapes = torch.tensor([[0.2, 0.3]])
    windows = dense_windows(SIZE, shapes, step=0.2, most=100000)
    for left, top in [(0, 0), (117, 93), (240, 160), (33, 71)]:
        target = torch.tensor([[left, top, left + 60.0, top + 40.0]])
        # A tenth of a side off in both axes at the worst: 0.81 / (2 - 0.81).
        assert float(iou(windows.xyxy, target).max()) >= 0.68


def test_large_shapes_keep_their_steps_when_windows_are_few():
    shapes = torch.tensor([[0.05, 0.05], [0.8, 0.8]])
    every = dense_windows(SIZE, shapes, step=0.2, most=10**6)
    some = dense_windows(SIZE, shapes, step=0.2, most=len(every) // 4)
    large = [int((w.xyxy[:, 2] - w.xyxy[:, 0] > 40).sum()) for w in (every, some)]
    small = [len(w) - n for w, n in zip((every, some), large, strict=True)]
    assert large[0] == large[1] > 0
    assert small[1] < small[0] / 4
