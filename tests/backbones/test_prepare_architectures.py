"""Folding batch normalisation, over architectures of both libraries, in inference and under autograd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from sppnet.backbones import Backbone, LayerInfo, backbone_from_spec, load_backbone, prepare
from sppnet.structures import Grid, ImageSize

EVERY_RUN = (
    "timm:mobilenetv3_small_050",
    "timm:ghostnet_100",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:resnet18",
)
EXHAUSTIVE = (
    "timm:tf_efficientnet_lite0",
    "timm:convnext_atto",
    "timm:regnetx_002",
    "timm:hardcorenas_a",
    "timm:repvgg_a0",
    "timm:resnet10t",
    "timm:mnasnet_small",
    "timm:densenet121",
    "timm:lcnet_050",
    "timm:edgenext_xx_small",
    "timm:mobilenetv4_conv_small_050",
    "timm:skresnet18",
    "timm:selecsls42",
    "timm:resnetv2_50",
    "torchvision:densenet121",
    "torchvision:mnasnet0_5",
    "torchvision:squeezenet1_1",
    "torchvision:vgg11_bn",
    "torchvision:mobilenet_v3_small",
    "torchvision:regnet_y_400mf",
    "torchvision:efficientnet_b0",
    "torchvision:googlenet",
)
NAMES = [*EVERY_RUN, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in EXHAUSTIVE)]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def stir(backbone: Backbone) -> None:
    """Give each normalisation statistics and weights of its own, so that a wrong fold changes the maps."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.6, 1.6)
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0, 0.3)


def assert_near(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    for one, two in zip(ours, theirs, strict=True):
        assert float(two.norm()) > 0
        assert float(((one - two).norm() / two.norm()).detach()) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_prepared_networks_equal_the_original(name: str) -> None:
    backbone = load_backbone(f"random:{name}")
    stir(backbone)
    fast = prepare(backbone, precision="float32")
    tensors = [*fast.parameters(), *fast.buffers()]
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in tensors)
    images = torch.rand(1, 3, 80, 112)
    with torch.no_grad():
        expected = backbone(images)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            assert_near(fast(images), expected)
        # Gradients to the input, as an explanation needs them, and to the parameters, as training does.
        given = images.clone().requires_grad_()
        maps = fast(given)
        assert_near(maps, expected)
        sum(m.square().mean() for m in maps).backward()
        assert given.grad is not None
        assert bool(given.grad.isfinite().all())
    fast.requires_grad_(True)
    sum(m.square().mean() for m in fast(images)).backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in fast.parameters())


def test_nothing_is_an_inference_tensor_in_a_callers_inference_mode() -> None:
    with torch.inference_mode():
        backbone = load_backbone("random:torchvision:resnet18")
        networks = [backbone, prepare(backbone), backbone_from_spec(backbone.spec())]
        made = torch.zeros(1)
    assert made.is_inference()
    for network in networks:
        assert not any(tensor.is_inference() for tensor in [*network.parameters(), *network.buffers()])


class _Shared(nn.Module):
    """Two convolutions before one normalisation, which cannot be folded into either."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.own = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.own(self.norm(self.one(x)) + self.norm(self.two(x))),)


def test_shared_normalisations_and_those_without_statistics_stay() -> None:
    infos = (LayerInfo("sum", 4, Grid(1.0, 1.5)),)
    backbone = Backbone("shared", _Shared(), infos, ImageSize(3, 3), (0.0,) * 3, (1.0,) * 3)
    fast = prepare(backbone, precision="float32")
    images = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(fast(images)[0], backbone(images)[0])
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fast.modules()) == 2
