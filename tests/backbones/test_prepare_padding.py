from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from sppnet.backbones import load_backbone, prepare
from sppnet.backbones.padding import constant_padding
from sppnet.errors import UserError


@pytest.mark.parametrize("kernel", [2, 3, 5, (3, 5), 7])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("shift", [True, False])
def test_constant_padding_equals_the_padding_of_every_size(
    kernel: int | tuple[int, int], groups: int, stride: int, dilation: int, shift: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        Conv2dSame(4, 8, kernel, stride=stride, dilation=dilation, groups=groups, bias=groups > 1)
    )
    with torch.no_grad():
        images = [torch.randn(1, 4, 4 * a, 4 * b) for a, b in ((3, 4), (2, 9))]
        expected = [plain(image) for image in images]
        replaced = constant_padding(plain, torch.zeros(1, 4, 8, 8), shift=shift)
        assert not any(isinstance(module, Conv2dSame) for module in replaced.modules())
        for image, maps in zip(images, expected, strict=True):
            torch.testing.assert_close(replaced(image), maps, atol=2e-6, rtol=1e-5)


def test_an_input_that_is_no_multiple_of_the_stride_keeps_its_convolution() -> None:
    plain = nn.Sequential(Conv2dSame(3, 4, 3, stride=2), Conv2dSame(4, 4, 3, stride=2))
    image = torch.randn(1, 3, 34, 34)  # the second convolution has an input of odd sides
    expected = plain(image)
    replaced = constant_padding(plain, image)
    assert [isinstance(module, Conv2dSame) for module in replaced] == [False, True]
    torch.testing.assert_close(replaced(image), expected)


def test_prepared_networks_have_constant_padding_and_refuse_other_sides() -> None:
    backbone = load_backbone("random:timm:tf_efficientnet_lite0", layers=("stride8",))
    network = prepare(backbone, precision="float32")
    assert not any(isinstance(module, Conv2dSame) for module in network.modules())
    step = backbone.multiple
    image = torch.rand(1, 3, 3 * step, 5 * step)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[0], backbone(image)[0], atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match=f"divisible by {step}"):
        network(torch.rand(1, 3, 3 * step + 1, 5 * step))


@pytest.mark.parametrize("name", ["tf_mobilenetv3_small_075", "efficientnet_b0"])
def test_prepared_networks_leave_out_the_blocks_after_the_last_layer(name: str) -> None:
    backbone = load_backbone(f"random:timm:{name}", layers=("stride16", "stride4"))
    network = prepare(backbone, precision="float32")
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in backbone.parameters()) / 3
    image = torch.rand(1, 3, 5 * 32, 3 * 32)
    with torch.no_grad():
        for maps, expected in zip(network(image), backbone(image), strict=True):
            torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-3)
