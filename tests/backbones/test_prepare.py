"""The fast copy gives what the original gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sppnet.backbones import Backbone, LayerInfo, load_backbone, prepare
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize


def _stir(backbone: Backbone) -> None:
    """Normalisations with statistics of their own, so that folding them wrongly shows."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)


def _count(backbone: Backbone) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


@pytest.mark.parametrize(
    "name",
    [
        "random:torchvision:resnet18",
        "random:timm:mobilenetv3_small_050",
        "random:builtin",
    ],
)
def test_folding_keeps_the_maps(name: str) -> None:
    backbone = load_backbone(name)
    _stir(backbone)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    fast = prepare(backbone, precision="float32")
    assert _count(fast) == 0
    assert not any(p.requires_grad for p in fast.parameters())
    images = torch.rand(2, 3, 65, 99)
    with torch.no_grad():
        for one, two in zip(backbone(images), fast(images), strict=True):
            assert float((one - two).norm() / one.norm()) < 1e-4
            assert two.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


class _Both(nn.Module):
    """A convolution whose output is normalised and used as it is, as in a pre-activation network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv(x)
        return (self.norm(x) + x,)


def test_all_batch_norms_of_lite_are_folded() -> None:
    backbone = load_backbone("random:timm:tf_efficientnet_lite0", layers=("stride32",))
    assert any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepare(backbone).modules())


def test_the_layout_avoids_gradients_that_corrupt_memory() -> None:
    # In channels_last, the gradient of the 1x1 convolution of the image ends the process sooner or later.
    network = prepare(load_backbone("random:timm:repvgg_a0", layers=("stride2",)), precision="float32")
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert any(conv.kernel_size == (1, 1) and conv.stride == (2, 2) for conv in convolutions)
    assert all(conv.weight.is_contiguous() for conv in convolutions)
    for _ in range(20):
        images = torch.rand(1, 3, 80, 112, requires_grad=True)
        network(images)[0].sum().backward()
        assert images.grad is not None
    other = prepare(load_backbone("random:timm:resnet18"), precision="float32")
    assert not all(m.weight.is_contiguous() for m in other.modules() if isinstance(m, nn.Conv2d))


def test_what_folding_would_change_is_not_folded() -> None:
    infos = (LayerInfo("sum", 4, Grid(1.0, 0.5)),)
    backbone = Backbone("both", _Both(), infos, ImageSize(1, 1), (0.0,) * 3, (1.0,) * 3)
    _stir(backbone)
    fast = prepare(backbone, precision="float32")
    assert _count(fast) == 1
    images = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(fast(images)[0], backbone(images)[0])


def test_bfloat16_maps_are_near() -> None:
    backbone = load_backbone("random:torchvision:squeezenet1_0")
    fast = prepare(backbone, precision="bfloat16")
    assert fast.precision == torch.bfloat16
    images = torch.rand(1, 3, 60, 80)
    with torch.no_grad():
        (one,), (two,) = backbone(images), fast(images)
    assert two.dtype == torch.bfloat16
    assert 0 < float((one - two.float()).norm() / one.norm()) < 0.03


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="auto, float32 or bfloat16"):
        prepare(load_backbone("random:builtin"), precision="int8")


def test_a_wrong_batch_is_refused() -> None:
    backbone = load_backbone("random:builtin")
    for shape in [(3, 20, 20), (1, 1, 20, 20)]:
        with pytest.raises(UserError, match=r"\[B, 3, H, W\]"):
            backbone(torch.rand(*shape))
