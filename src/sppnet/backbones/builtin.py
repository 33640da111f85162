"""The network in the package: small and fast on a CPU, for images of any size.

A residual network. Every stride-2 layer is a 3x3 convolution with a padding of one, so that a side of n
pixels gives ceil(n / 2) cells, no side is too short, and the centre of the first cell is the centre of the
first pixel (0.5) at every stride. Batch normalisation is used in training only: `fold` merges it into the
convolutions, and the package has the folded weights.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from sppnet.backbones.weights import read_weights
from sppnet.errors import UserError

WEIGHTS = "builtin.safetensors"


class _Unit(nn.Module):
    """A convolution with batch normalisation, unless it is folded; no activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.conv(maps))

    def folded_tensors(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution that is equivalent in inference."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            assert self.conv.bias is not None
            return self.conv.weight.detach(), self.conv.bias.detach()
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        factor = self.norm.weight.detach().double() / (variance.double() + self.norm.eps).sqrt()
        weight = self.conv.weight.detach().double() * factor[:, None, None, None]
        bias = self.norm.bias.detach().double() - mean.double() * factor
        return weight.to(self.conv.weight.dtype), bias.to(self.conv.weight.dtype)


class _Residual(nn.Module):
    """A residual block with 1x1 (to ``inner`` channels), 3x3 and 1x1 convolutions."""

    def __init__(self, channels: int, inner: int, folded: bool) -> None:
        super().__init__()
        self.squeeze = _Unit(channels, inner, 1, 1, folded)
        self.spread = _Unit(inner, inner, 3, 1, folded)
        self.expand = _Unit(inner, channels, 1, 1, folded)

    def forward(self, maps: Tensor) -> Tensor:
        inner = torch.relu(self.spread(torch.relu(self.squeeze(maps))))
        return torch.relu(maps + self.expand(inner))


class _Step(nn.Module):
    """A unit followed by ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.unit = _Unit(inputs, outputs, kernel, stride, folded)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.unit(maps))


class BuiltinNet(nn.Module):
    """A network that maps normalised images to maps at strides 8 and 16.

    A side of n pixels (n >= 1) gives ceil(n / 8) and ceil(n / 16) cells; the first cell of both maps is
    centred on the first pixel (0.5 in continuous coordinates). The maps are not negative.

    Args:
        folded: omit batch normalisation, for inference; training requires ``False``.
    """

    CHANNELS: ClassVar[tuple[int, int]] = (256, 256)
    STRIDES: ClassVar[tuple[int, int]] = (8, 16)
    MEAN: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    STD: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    minimum_side: ClassVar[int] = 1

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__()
        self.folded = folded
        self.fine = nn.Sequential(
            _Step(3, 32, 3, 2, folded),
            _Step(32, 64, 3, 2, folded),
            _Residual(64, 32, folded),
            _Step(64, 192, 3, 2, folded),
            *(_Residual(192, 64, folded) for _ in range(4)),
        )
        self.coarse = nn.Sequential(
            _Step(192, 96, 1, 1, folded),
            _Step(96, 256, 3, 2, folded),
            *(_Residual(256, 96, folded) for _ in range(2)),
        )
        self.fine_head = nn.Conv2d(192, self.CHANNELS[0], 1)
        self.coarse_head = nn.Conv2d(256, self.CHANNELS[1], 1)

    def before_relu(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both maps before their last ReLU, for the loss of distillation.

        Args:
            images: ``[B, 3, H, W]``, RGB, normalised by `MEAN` and `STD`.

        Returns:
            ``[B, 256, ceil(H / 8), ceil(W / 8)]`` and ``[B, 256, ceil(H / 16), ceil(W / 16)]``.
        """
        fine = self.fine(images)
        return self.fine_head(fine), self.coarse_head(self.coarse(fine))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the maps at strides 8 and 16.

        Args:
            images: ``[B, 3, H, W]``, RGB, normalised by `MEAN` and `STD`.

        Returns:
            ``[B, 256, ceil(H / 8), ceil(W / 8)]`` and ``[B, 256, ceil(H / 16), ceil(W / 16)]``, at least 0.
        """
        fine, coarse = self.before_relu(images)
        return torch.relu(fine), torch.relu(coarse)

    def fold(self) -> BuiltinNet:
        """Merge every batch normalisation into its convolution.

        Returns:
            A new network in evaluation mode, with equal maps up to rounding.
        """
        net = BuiltinNet(folded=True)
        units = [module for module in self.modules() if isinstance(module, _Unit)]
        targets = [module for module in net.modules() if isinstance(module, _Unit)]
        with torch.no_grad():
            for unit, target in zip(units, targets, strict=True):
                weight, bias = unit.folded_tensors()
                assert target.conv.bias is not None
                target.conv.weight.copy_(weight)
                target.conv.bias.copy_(bias)
        net.fine_head.load_state_dict(self.fine_head.state_dict())
        net.coarse_head.load_state_dict(self.coarse_head.state_dict())
        return net.eval()


def load_builtin(weights: Path | None = None) -> BuiltinNet:
    """Load the folded network with trained weights, float32, in evaluation mode.

    Args:
        weights: a safetensors file of ``python -m sppnet.recipes.pretrain_builtin``; None for the weights in
            the package.

    Raises:
        UserError: the file does not exist, is not a safetensors file or has the weights of another network.
    """
    where = "the builtin weights" if weights is None else str(weights)
    if weights is None:
        content = resources.files("sppnet.backbones").joinpath(WEIGHTS).read_bytes()
        tensors = load_bytes(content)
    else:
        tensors = read_weights(weights)
    net = BuiltinNet(folded=True)
    expected = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != got:
        differing = sorted(
            name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)
        )
        raise UserError(
            where,
            f"the {len(expected)} tensors of the builtin network",
            f"{len(got)} tensors, {len(differing)} of them different, first {differing[0]}",
        )
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.eval()
