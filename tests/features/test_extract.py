"""Images to maps: sizes, scales, order, and equality with the network itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sppnet.backbones import Backbone, LayerInfo, load_backbone
from sppnet.errors import UserError
from sppnet.features import extract, extract_batch, resized_size
from sppnet.structures import Grid, ImageSize


class _Pool(torch.nn.Module):
    """The mean of blocks of 4 x 4 pixels and of 8 x 8, times a weight of one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return functional.avg_pool2d(x, 4) * self.one, functional.avg_pool2d(x, 8) * self.one


def _blocks(multiple: int = 1, least: int = 8) -> Backbone:
    infos = (LayerInfo("four", 3, Grid(4.0, 2.0)), LayerInfo("eight", 3, Grid(8.0, 4.0)))
    return Backbone("blocks", _Pool(), infos, ImageSize(least, least), (0.5,) * 3, (0.25,) * 3, multiple)


def test_natural_size_equals_the_network() -> None:
    backbone = load_backbone("random:builtin")
    image = torch.rand(3, 41, 67)
    maps = extract(backbone, image)
    assert [m.layer for m in maps.maps] == ["stride8", "stride16", "stride32"]
    with torch.no_grad():
        for fmap, values in zip(maps.maps, backbone(image[None]), strict=True):
            torch.testing.assert_close(fmap.values, values[0])
            assert fmap.image == fmap.resized == ImageSize(41, 67)


def test_normalisation_is_inside() -> None:
    maps = extract(_blocks(), torch.full((3, 16, 16), 0.75))
    assert torch.equal(maps.maps[0].values, torch.ones(3, 4, 4))


def test_scales_ascend_layer_by_layer_and_remember_their_sizes() -> None:
    maps = extract(_blocks(), torch.rand(3, 30, 40), (48, 24, 48))
    assert [(m.layer, m.resized.height, m.resized.width) for m in maps.maps] == [
        ("four", 24, 32),
        ("eight", 24, 32),
        ("four", 48, 64),
        ("eight", 48, 64),
    ]
    assert maps.image == ImageSize(30, 40)
    assert maps.maps[2].scale == (1.6, 1.6)


def test_resizing_is_bilinear_and_optionally_antialiased() -> None:
    backbone, image = _blocks(), torch.rand(3, 64, 96)
    for antialias in (False, True):
        small = functional.interpolate(image[None], (16, 24), mode="bilinear", antialias=antialias)
        (expected, _) = backbone(small)
        found = extract(backbone, image, (16,), antialias=antialias).maps[0].values
        torch.testing.assert_close(found, expected[0].detach())


def test_a_constant_image_stays_constant_at_every_scale() -> None:
    for fmap in extract(_blocks(), torch.full((3, 37, 53), 0.25), (19, 37, 90)).maps:
        torch.testing.assert_close(fmap.values, torch.full_like(fmap.values, -1.0))


def test_small_images_are_enlarged_to_the_minimum() -> None:
    maps = extract(_blocks(least=16), torch.rand(3, 1, 9))
    assert maps.maps[0].resized == ImageSize(16, 16)
    assert maps.image == ImageSize(1, 9)


def test_a_batch_equals_its_images() -> None:
    backbone = load_backbone("random:builtin")
    images = [torch.rand(3, 40, 56) for _ in range(3)]
    for image, together in zip(images, extract_batch(backbone, images, (32, 48)), strict=True):
        for one, two in zip(extract(backbone, image, (32, 48)).maps, together.maps, strict=True):
            torch.testing.assert_close(one.values, two.values, atol=1e-5, rtol=1e-4)
            assert (one.layer, one.grid, one.resized, one.image) == (
                two.layer,
                two.grid,
                two.resized,
                two.image,
            )


def test_maps_carry_no_gradient() -> None:
    (fmap, *_) = extract(_blocks(), torch.rand(3, 16, 16, requires_grad=True)).maps
    assert not fmap.values.requires_grad


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1500), st.sampled_from([1, 16, 32]))
def test_the_short_side_becomes_the_scale(height: int, width: int, scale: int, multiple: int) -> None:
    backbone = _blocks(multiple, least=multiple)
    size = resized_size(ImageSize(height, width), scale, backbone)
    assert size.height % multiple == size.width % multiple == 0
    if multiple == 1:
        assert size.short_side == scale
    short = min(height, width)
    for before, after in ((height, size.height), (width, size.width)):
        assert abs(after - before * scale / short) <= multiple / 2 or after == multiple


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, (100, 300)), (300, (100, 300)), (299, (100, 299)), (150, (50, 150)), (10, (8, 10))],
)
def test_the_long_side_can_be_limited(limit: int | None, expected: tuple[int, int]) -> None:
    size = resized_size(ImageSize(50, 150), 100, _blocks(), limit)
    assert (size.height, size.width) == expected


def test_mistakes() -> None:
    backbone = _blocks()
    with pytest.raises(UserError, match=r"images\[0\]: expected a tensor \[3, H, W\]"):
        extract(backbone, torch.rand(1, 16, 16))
    with pytest.raises(UserError, match=r"images\[1\]"):
        extract_batch(backbone, [torch.rand(3, 16, 16), torch.rand(3, 16, 17)])
    for scales in ((), (0,), (16, -1)):
        with pytest.raises(UserError, match="scales"):
            extract(backbone, torch.rand(3, 16, 16), scales)
    assert extract_batch(backbone, []) == []
