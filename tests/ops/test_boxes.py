import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from sppnet.ops.boxes import areas, decode_deltas, encode_deltas, ioa, iou, nms, vote


def random_boxes(count, seed, least=1.0):
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=draw) * 80
    sides = torch.rand(count, 2, generator=draw) * 60 + least
    return torch.cat([low, low + sides], 1)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_iou_equals_torchvision(n, m, seed):
    ours, theirs = random_boxes(n, seed), random_boxes(m, seed + 1)
    torch.testing.assert_close(iou(ours, theirs), box_iou(ours, theirs))


def test_boxes_without_area_overlap_nothing():
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert iou(point, point).item() == 0
    assert iou(point, torch.tensor([[0.0, 0, 9, 9]])).item() == 0
    assert ioa(point, torch.tensor([[0.0, 0, 9, 9]])).item() == 0


def test_covered_is_the_share_of_the_first():
    ours, theirs = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 100, 100]])
    assert ioa(ours, theirs).item() == pytest.approx(0.5)
    assert areas(ours).item() == 100


@given(st.integers(1, 30), st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_decoding_undoes_encoding(count, seed):
    boxes, targets = random_boxes(count, seed, 5), random_boxes(count, seed + 1, 5)
    torch.testing.assert_close(
        decode_deltas(boxes, encode_deltas(boxes, targets)), targets, rtol=1e-4, atol=1e-3
    )


def test_deltas_in_closed_form():
    # Half a width to the right, twice as high.
    boxes, targets = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, -10, 15, 30]])
    expected = torch.tensor([[0.5, 0.0, 0.0, 2.0]])
    expected[0, 3] = torch.tensor(2.0).log()
    torch.testing.assert_close(encode_deltas(boxes, targets), expected)


def test_a_wild_answer_stays_finite():
    assert torch.isfinite(decode_deltas(torch.tensor([[0.0, 0, 10, 10]]), torch.full((1, 4), 1e4))).all()


def plain_nms(boxes, scores, threshold):
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if float(iou(boxes[best][None], boxes[i][None])) <= threshold]
    return kept


@given(st.integers(0, 25), st.integers(0, 999), st.sampled_from([0.1, 0.3, 0.7]))
@settings(deadline=None, max_examples=25)
def test_nms_equals_a_plain_loop(count, seed, threshold):
    boxes = random_boxes(count, seed)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores.tolist(), threshold)


@given(st.integers(0, 60), st.integers(0, 12), st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_nms_may_stop_early(count, most, seed):
    boxes = random_boxes(count, seed)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    assert nms(boxes, scores, 0.4, most).tolist() == nms(boxes, scores, 0.4).tolist()[:most]


def test_voting_is_the_mean_by_iou_and_weight():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [50, 50, 60, 60]])
    merged = vote(boxes[:1], boxes, torch.tensor([3.0, 1.0, 9.0]), 0.5)
    # The second overlaps the first by 90 / 110.
    pull = (90 / 110) / (3 + 90 / 110)
    torch.testing.assert_close(merged, torch.tensor([[pull, 0, 10 + pull, 10]]))
    assert vote(boxes[:0], boxes, torch.ones(3), 0.5).shape == (0, 4)
    torch.testing.assert_close(vote(boxes[:1], boxes, torch.zeros(3), 0.5), boxes[:1])
