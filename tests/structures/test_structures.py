import pytest
import torch

from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections, FeatureMap, FeatureMaps, Grid, GroundTruth, ImageSize

SIZE = ImageSize(30, 40)


def test_image_size_rejects_empty_images():
    with pytest.raises(UserError, match="0 x 4"):
        ImageSize(0, 4)
    assert SIZE.short_side == 30
    assert SIZE.area == 1200


@pytest.mark.parametrize(
    "bad", [[0, 0, float("nan"), 1], [0, 0, float("inf"), 1], [5, 0, 4, 1], [0, 5, 1, 4]]
)
def test_boxes_name_the_first_invalid_box(bad):
    rows = torch.tensor([[0.0, 0, 1, 1], bad, [9.0, 9, 0, 0]])
    with pytest.raises(UserError, match=r"xyxy\[1\]"):
        Boxes(rows, SIZE)


def test_boxes_of_another_shape_are_rejected():
    with pytest.raises(UserError, match=r"\[3\]"):
        Boxes(torch.zeros(3), SIZE)


def test_boxes_are_float32_and_have_areas():
    boxes = Boxes(torch.tensor([[1, 2, 4, 6], [0, 0, 0, 5]]), SIZE)
    assert boxes.xyxy.dtype == torch.float32
    assert boxes.areas.tolist() == [12, 0]


def test_clip_limits_boxes_to_the_image():
    boxes = Boxes(torch.tensor([[-5.0, -5, 50, 50], [10, 10, 20, 20]]), SIZE).clip()
    assert boxes.xyxy.tolist() == [[0, 0, 40, 30], [10, 10, 20, 20]]


def test_a_mask_selects_in_every_field():
    found = Detections(
        Boxes(torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]), SIZE),
        torch.tensor([0.9, 0.5, 0.1]),
        torch.tensor([1, 0, 1]),
        ("a", "b"),
    )
    some = found[found.labels == 1]
    assert len(some) == 2
    assert some.boxes.xyxy[:, 2].tolist() == [1, 3]
    assert some.scores.tolist() == pytest.approx([0.9, 0.1])
    truth = GroundTruth.make(found.boxes, found.labels, found.names)[torch.tensor([2])]
    assert (len(truth), truth.labels.tolist(), len(truth.crowd)) == (1, [1], 1)


def test_unequal_lengths_and_unknown_classes_are_rejected():
    boxes = Boxes(torch.zeros(2, 4), SIZE)
    with pytest.raises(UserError, match="scores"):
        Detections(boxes, torch.zeros(1), torch.zeros(2, dtype=torch.int64), ("a",))
    with pytest.raises(UserError, match=r"0\.\.0"):
        GroundTruth.make(boxes, torch.tensor([0, 1]), ("a",))


def test_feature_maps_validate_their_maps():
    fmap = FeatureMap(torch.zeros(2, 3, 4), "l", Grid(8, 4), ImageSize(60, 20), SIZE)
    assert fmap.scale == (2.0, 0.5)
    other = FeatureMap(torch.zeros(2, 3, 4), "k", Grid(8, 4), ImageSize(60, 20), ImageSize(31, 40))
    with pytest.raises(UserError, match="one image"):
        FeatureMaps((fmap, other))
    with pytest.raises(UserError, match="none"):
        FeatureMaps(())
    with pytest.raises(UserError, match=r"\[2, 0, 4\]"):
        FeatureMap(torch.zeros(2, 0, 4), "l", Grid(8, 4), SIZE, SIZE)


def test_flipped_boxes_cover_the_same_pixels_of_the_flipped_image() -> None:
    image = torch.zeros(20, 30)
    image[3:9, 4:11] = 1
    boxes = Boxes(torch.tensor([[4.0, 3.0, 11.0, 9.0]]), ImageSize(20, 30))
    x0, y0, x1, y1 = boxes.flipped().xyxy[0].int().tolist()
    assert int(image.flip(1)[y0:y1, x0:x1].sum()) == int(image.sum()) == (x1 - x0) * (y1 - y0)
    assert torch.equal(boxes.flipped().flipped().xyxy, boxes.xyxy)
