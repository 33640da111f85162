import pytest
import torch
from torch.nn import functional

from sppnet.backbones import load_backbone
from sppnet.detect.crops import CropOptions, crop_windows, pool_crops
from sppnet.errors import UserError
from sppnet.features import extract, pool_rows
from sppnet.structures import Boxes, ImageSize

FILL = torch.tensor([0.1, 0.2, 0.3])


def boxes(*rows, height=40, width=50):
    return Boxes(torch.tensor(rows, dtype=torch.float32), ImageSize(height, width))


def test_a_crop_without_context_is_the_resized_window():
    image = torch.rand(3, 40, 50)
    crop = crop_windows(image, boxes((5, 6, 25, 36)), FILL, CropOptions(17, 0))[0]
    wanted = functional.interpolate(image[None, :, 6:36, 5:25], (17, 17), mode="bilinear")[0]
    assert torch.equal(crop, wanted)


def test_context_is_the_image_around_the_window():
    # 20 pixels in the middle of 30 of a crop: the window grows by 5 pixels a side.
    image = torch.rand(3, 40, 50)
    crop = crop_windows(image, boxes((15, 10, 35, 30)), FILL, CropOptions(30, 5))[0]
    assert torch.equal(crop, image[:, 5:35, 10:40])


def test_off_the_image_is_the_fill():
    image = torch.rand(3, 40, 50)
    crop = crop_windows(image, boxes((0, 0, 20, 20)), FILL, CropOptions(30, 5))[0]
    assert torch.equal(crop[:, 5:, 5:], image[:, :25, :25])
    assert torch.equal(crop[:, :5], FILL.view(3, 1, 1).expand(3, 5, 30))
    assert torch.equal(crop[:, :, :5], FILL.view(3, 1, 1).expand(3, 30, 5))


def test_tiny_and_distant_windows():
    image = torch.rand(3, 40, 50)
    crops = crop_windows(image, boxes((3, 3, 3, 3), (60, 60, 80, 80), (49.9, 39.9, 50, 40)), FILL)
    assert crops.shape == (3, 3, 227, 227)
    assert bool(torch.isfinite(crops).all())
    assert torch.equal(crops[1], FILL.view(3, 1, 1).expand(3, 227, 227))


def test_rows_do_not_depend_on_the_batch_and_one_window_is_the_resized_image():
    torch.manual_seed(0)
    network = load_backbone("random:torchvision:squeezenet1_0", layers=("stride8",))
    image = torch.rand(3, 64, 64)
    some = boxes((0, 0, 64, 64), (5, 5, 40, 60), (20, 10, 30, 30), height=64, width=64)
    options = CropOptions(64, 0, 2)
    rows = pool_crops(network, image, some, (3, 1), options)
    assert torch.allclose(rows, pool_crops(network, image, some, (3, 1), CropOptions(64, 0, 1)), atol=1e-5)
    # The whole image at its own size: cropping first or convolving first is the same.
    whole = pool_rows(extract(network, image), some[:1], (3, 1))
    assert torch.allclose(rows[:1], whole, atol=1e-5)
    assert pool_crops(network, image, some[:0], (3, 1), options).shape == (0, rows.shape[1])


@pytest.mark.parametrize("options", [{"side": 0}, {"padding": 114}, {"batch": 0}, {"padding": -1}])
def test_mistakes(options):
    with pytest.raises(UserError, match="CropOptions"):
        CropOptions(**options)


def test_boxes_of_another_image():
    with pytest.raises(UserError, match="size"):
        crop_windows(torch.rand(3, 40, 40), boxes((0, 0, 5, 5)), FILL)
