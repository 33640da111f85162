from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sppnet.backbones import load_backbone
from sppnet.classify import NetworkOptions, TrainOptions, ViewOptions
from sppnet.classify.network import PyramidNetwork, make_network
from sppnet.classify.samples import LONGEST_SHAPE, Sample, TrainImages, short_side_size
from sppnet.classify.transfer import see
from sppnet.classify.views import paper_96, view_boxes, view_probabilities
from sppnet.errors import UserError
from sppnet.features import extract, resize
from sppnet.ops import region_pyramid_pool
from sppnet.structures import ImageSize

IMAGE = torch.rand(3, 80, 110, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> PyramidNetwork:
    return make_network("zf5-small/32", 5, NetworkOptions((3, 1), (16,), start="he"), 64, seed=2).eval()


def test_ten_views_are_centre_and_corners() -> None:
    boxes = view_boxes(ImageSize(73, 100), ViewOptions((73,), 64, "five"))
    assert boxes.xyxy.tolist() == [
        [18, 4, 82, 68], [0, 0, 64, 64], [36, 0, 100, 64], [0, 9, 64, 73], [36, 9, 100, 73],
    ]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "count"), [(90, 90, 9), (64, 90, 3), (90, 64, 3), (64, 64, 1)])
def test_nine_views_and_fewer_on_a_short_side(height: int, width: int, count: int) -> None:
    boxes = view_boxes(ImageSize(height, width), ViewOptions((64,), 64, "nine"))
    assert len(boxes) == count
    assert len({tuple(box) for box in boxes.xyxy.tolist()}) == count


def test_the_paper_s_views_are_96() -> None:
    options = paper_96()
    assert options.scales == (224, 256, 300, 360, 448, 560)
    sizes = [ImageSize(scale, scale * 4 // 3) for scale in options.scales]
    assert [2 * len(view_boxes(size, options)) for size in sizes] == [6, 18, 18, 18, 18, 18]
    assert paper_96(64).scales == (64, 73, 86, 103, 128, 160)


def test_crops_are_the_mean_of_each_crop_s_softmax(network: PyramidNetwork) -> None:
    found = view_probabilities(network, IMAGE, ViewOptions((80,), 64, "five"))
    alone: list[Tensor] = []
    for image in (IMAGE, IMAGE.flip(2)):
        for top, left in ((8, 23), (0, 0), (0, 46), (16, 0), (16, 46)):
            with torch.inference_mode():
                alone.append(network(image[None, :, top : top + 64, left : left + 64]).softmax(1)[0])
    assert torch.allclose(found, torch.stack(alone).mean(0), atol=1e-5)


def test_views_on_maps_pool_the_cells_with_centres_in_the_view(network: PyramidNetwork) -> None:
    found = view_probabilities(network, IMAGE, ViewOptions((80,), 64, "centre", flip=False, how="maps"))
    (fmap,) = extract(network.backbone, IMAGE).maps
    centres = [fmap.grid.first + i * fmap.grid.stride for i in range(40)]
    columns = [i for i, c in enumerate(centres) if 23 <= c < 87]
    rows = [i for i, c in enumerate(centres) if 8 <= c < 72]
    cells = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
    with torch.inference_mode():
        row = region_pyramid_pool(fmap.values[None], [cells], (3, 1))
        assert torch.allclose(found, network.head(row).softmax(1)[0], atol=1e-5)


def test_full_image_is_the_network_on_it(network: PyramidNetwork) -> None:
    options = ViewOptions(positions="none", flip=False, full=60)
    found = view_probabilities(network, IMAGE, options)
    resized = resize(IMAGE[None], ImageSize(60, 83), antialias=True)
    with torch.inference_mode():
        assert torch.allclose(found, network(resized).softmax(1)[0], atol=1e-5)


def test_the_convolutions_run_once_per_scale_and_flip(network: PyramidNetwork) -> None:
    calls: list[object] = []
    hook = network.backbone.register_forward_hook(lambda *_: calls.append(None))
    view_probabilities(network, IMAGE, paper_96(64))
    hook.remove()
    assert len(calls) == 6 * 2 + 2


def test_invalid_views_are_refused(network: PyramidNetwork) -> None:
    plain = make_network("zf5-small/32", 5, NetworkOptions((), (16,)), 64).eval()
    assert view_probabilities(plain, IMAGE, ViewOptions((80,), 64)).sum() == pytest.approx(1, abs=1e-5)
    for options in (ViewOptions((80,), 64, how="maps"), ViewOptions(positions="none", full=80)):
        with pytest.raises(UserError, match="without pyramid pooling"):
            view_probabilities(plain, IMAGE, options)
    with pytest.raises(UserError, match="at least the view"):
        view_probabilities(network, IMAGE, ViewOptions((60,), 64))


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (1, 1), (1, 3), (3000, 2)])
def test_extreme_shapes_are_squeezed_to_bounded_ones(shape: tuple[int, int]) -> None:
    size = ImageSize(*shape)
    resized = short_side_size(size, 64)
    assert resized.short_side == 64
    assert max(resized.height, resized.width) <= LONGEST_SHAPE * 64
    assert (resized.height > resized.width) == (size.height > size.width)
    network = PyramidNetwork(load_backbone("random:builtin"), 3, NetworkOptions((2, 1), (4,))).eval()
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    for options in (
        ViewOptions((64,), 32, "nine", full=64),
        ViewOptions((64,), 32, "nine", how="maps"),
    ):
        probabilities = view_probabilities(network, image, options)
        assert probabilities.shape == (3,)
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-4)
    assert max(see(image, "full", 64, network.backbone).shape[2:]) <= LONGEST_SHAPE * 64


def test_training_images_of_extreme_shapes(tmp_path) -> None:
    samples = []
    for number, shape in enumerate(((1, 3000), (3000, 1), (1, 1))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path)
        samples.append(Sample(path, 0))
    for options in (
        TrainOptions(short_side=32, crop=24),
        TrainOptions(short_side=32, crop=24, native=True),
    ):
        images = TrainImages(samples, options, 0, 0)
        for i in range(len(samples)):
            pixels, _ = images[i]
            assert bool(pixels.isfinite().all())
            assert max(pixels.shape[1:]) <= LONGEST_SHAPE * 32
