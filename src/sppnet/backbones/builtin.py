"""The network in the package: small and fast on a CPU, for images of any size.

A residual network. Every stride-2 layer is a 3x3 convolution with a padding of one, so that a side of n
pixels gives ceil(n / 2) cells, no side is too short, and the centre of the first cell is the centre of the
first pixel (0.5) at every stride. Batch normalisation is used in training only: `fold` merges it into the
convolutions, and the package has the folded weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from sppnet.backbones.weights import read_weights
from sppnet.errors import UserError

WEIGHTS = "builtin.safetensors"


class Unit(nn.Module):
    """A convolution with batch normalisation, unless it is folded; no activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the convolution and the normalisation to maps ``[B, C, H, W]``."""
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
        self.squeeze = Unit(channels, inner, 1, 1, folded)
        self.spread = Unit(inner, inner, 3, 1, folded)
        self.expand = Unit(inner, channels, 1, 1, folded)

    def forward(self, maps: Tensor) -> Tensor:
        inner = torch.relu(self.spread(torch.relu(self.squeeze(maps))))
        return torch.relu(maps + self.expand(inner))


class _Step(nn.Module):
    """A unit followed by ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.unit = Unit(inputs, outputs, kernel, stride, folded)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.unit(maps))


@dataclass(frozen=True)
class Version:
    """Outputs of a version of the network.

    Attributes:
        channels: channels of the map at each stride: 8, 16 and, in version 2, 32.
        rectified: whether the maps end with a ReLU.
    """

    channels: tuple[int, ...]
    rectified: bool


VERSIONS = {1: Version((256, 256), rectified=True), 2: Version((48, 120, 352), rectified=False)}
"""All versions. The package has weights of version 2; runs of version 1 contain their weights."""


class BuiltinNet(nn.Module):
    """A network that maps normalised images to maps at strides 8, 16 and 32.

    A side of n pixels (n >= 1) gives ceil(n / s) cells at stride s; the first cell of every map is centred on
    the first pixel (0.5 in continuous coordinates).

    Args:
        folded: omit batch normalisation, for inference; training requires ``False``.
        version: a key of `VERSIONS`.
    """

    CHANNELS: ClassVar[tuple[int, ...]] = VERSIONS[2].channels
    STRIDES: ClassVar[tuple[int, ...]] = (8, 16, 32)
    MEAN: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    STD: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    minimum_side: ClassVar[int] = 1

    def __init__(self, *, folded: bool = True, version: int = 2) -> None:
        super().__init__()
        self.folded = folded
        self.version = version
        channels = VERSIONS[version].channels
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
        self.fine_head = nn.Conv2d(192, channels[0], 1)
        self.coarse_head = nn.Conv2d(256, channels[1], 1)
        if len(channels) > 2:
            self.deep = nn.Sequential(
                _Step(256, 128, 1, 1, folded),
                _Step(128, 384, 3, 2, folded),
                *(_Residual(384, 128, folded) for _ in range(2)),
            )
            self.deep_head = nn.Conv2d(384, channels[2], 1)

    def forward(self, images: Tensor, most: int | None = None) -> tuple[Tensor, ...]:
        """Compute the maps at all strides.

        Args:
            images: ``[B, 3, H, W]``, RGB, normalised by `MEAN` and `STD`.
            most: number of maps to compute, from stride 8 on; None for all.

        Returns:
            ``[B, C, ceil(H / s), ceil(W / s)]`` for every stride s.
        """
        found: list[Tensor] = []
        maps = images
        for name in ("fine", "coarse", "deep")[: min(most or 3, len(VERSIONS[self.version].channels))]:
            maps = self.get_submodule(name)(maps)
            found.append(self.get_submodule(f"{name}_head")(maps))
        return tuple(torch.relu(m) for m in found) if VERSIONS[self.version].rectified else tuple(found)

    def fold(self) -> BuiltinNet:
        """Merge every batch normalisation into its convolution.

        Returns:
            A new network in evaluation mode, with equal maps up to rounding.
        """
        net = BuiltinNet(folded=True, version=self.version)
        units = [module for module in self.modules() if isinstance(module, Unit)]
        targets = [module for module in net.modules() if isinstance(module, Unit)]
        with torch.no_grad():
            for unit, target in zip(units, targets, strict=True):
                weight, bias = unit.folded_tensors()
                assert target.conv.bias is not None
                target.conv.weight.copy_(weight)
                target.conv.bias.copy_(bias)
        for name, module in self.named_children():
            if name.endswith("_head"):
                net.get_submodule(name).load_state_dict(module.state_dict())
        return net.eval()


def _hint(got: dict[str, tuple[int, ...]], version: int) -> str:
    """Return advice for weights of another version; empty for other weights."""
    for other in VERSIONS.keys() - {version}:
        if got == {n: tuple(t.shape) for n, t in BuiltinNet(version=other).state_dict().items()}:
            return f"They are weights of version {other}: choose {'builtin-1' if other == 1 else 'builtin'}."
    return ""


def load_builtin(weights: Path | None = None, version: int = 2) -> BuiltinNet:
    """Load the folded network with trained weights, float32, in evaluation mode.

    Args:
        weights: a safetensors file of ``python -m sppnet.recipes.pretrain_builtin``; None for the weights in
            the package.
        version: a key of `VERSIONS`; the package has the weights of version 2 only.

    Raises:
        UserError: the file does not exist, is not a safetensors file or has the weights of another network.
    """
    where = "the builtin weights" if weights is None else str(weights)
    if weights is None:
        content = resources.files("sppnet.backbones").joinpath(WEIGHTS).read_bytes()
        tensors = load_bytes(content)
    else:
        tensors = read_weights(weights)
    net = BuiltinNet(folded=True, version=version)
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
            _hint(got, version),
        )
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.eval()
