"""The convolutional layers of the four networks of the paper (He et al. 2015, section 3.1.1, Table 1).

Details of ZF-5 that the table does not state follow the SPP_net release: padding, normalisation within a
channel, pooling with ceil mode. The padding of the others gives the printed map sizes for inputs of 224: 13
for ZF-5 and Convnet*-5, 18 for both Overfeat networks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.backbones.registry import LoadedTrunk
from sppnet.backbones.weights import fill, read_weights
from sppnet.errors import UserError

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet per channel; the paper subtracts a mean image (section 3.1.1)."""
STD = (1 / 255, 1 / 255, 1 / 255)
"""The input of the networks is 0..255 less the mean, without division by a standard deviation."""

_Step = Literal["lrn", "channel_lrn", "pool2", "pool3", "pool_3_2"]


@dataclass(frozen=True)
class _Conv:
    """A convolution with ReLU, and the operations between it and the next one."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    after: tuple[_Step, ...] = ()


def _same(channels: int, after: tuple[_Step, ...] = ()) -> _Conv:
    return _Conv(channels, 3, padding=1, after=after)


_OVERFEAT = (_Conv(96, 7, 2, after=("pool3", "lrn")), _Conv(256, 5, padding=2, after=("pool2",)))
_NETS: dict[str, tuple[_Conv, ...]] = {
    "zf5": (
        _Conv(96, 7, 2, 1, ("channel_lrn", "pool_3_2")),
        _Conv(256, 5, 2, 0, ("channel_lrn", "pool_3_2")),
        *(_same(384), _same(384), _same(256)),
    ),
    # Stride 4 instead of 16: crops of 64 and 51 pixels give maps of the size of 224 and 180 in ZF-5.
    "zf5-small": (
        _Conv(96, 7, 2, 1, ("channel_lrn", "pool_3_2")),
        _Conv(256, 5, 1, 1, ("channel_lrn",)),
        *(_same(384), _same(384), _same(256)),
    ),
    "convnet5": (
        _Conv(96, 11, 4, 2, ("lrn",)),
        _Conv(256, 5, 1, 2, ("lrn", "pool_3_2")),
        *(_same(384, ("pool_3_2",)), _same(384), _same(256)),
    ),
    "overfeat5": (*_OVERFEAT, *[_same(512)] * 3),
    "overfeat7": (*_OVERFEAT, *[_same(512)] * 5),
}
PAPER_NETS = tuple(_NETS)
"""Names: the four networks of the paper and ``zf5-small``, for experiments with small images."""


class ChannelNorm(nn.Module):
    """Local response normalisation within each channel: ``x * (1 + alpha * mean(x^2))^-beta``.

    The mean is over ``size`` x ``size`` neighbours, zeros outside the map included, as in Caffe.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps ``[B, C, H, W]``."""
        squares = functional.avg_pool2d(maps * maps, self.size, 1, self.size // 2)
        return maps * (1 + self.alpha * squares) ** -self.beta


class PaperTrunk(nn.Sequential):
    """The convolutions of a network up to the last requested layer.

    Args:
        net: one of `PAPER_NETS`.
        divisor: divisor of the number of channels; 1 in the paper.
        names: requested layers, ``"conv1"`` to ``"conv7"``, after their ReLU.
    """

    def __init__(self, net: str, divisor: int, names: tuple[str, ...]) -> None:
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for number, conv in enumerate(_NETS[net], 1):
            width = conv.channels // divisor
            steps[f"conv{number}"] = nn.Conv2d(channels, width, conv.kernel, conv.stride, conv.padding)
            steps[f"relu{number}"] = nn.ReLU()
            channels = width
            if all(f"conv{n}" not in names for n in range(number + 1, len(_NETS[net]) + 1)):
                break
            for step in conv.after:
                steps[f"{'norm' if 'lrn' in step else 'pool'}{number}"] = _make_step(step)
        super().__init__(steps)
        self.net = net
        self.names = names

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Compute one map per layer from normalised images ``[B, 3, H, W]``."""
        maps: dict[str, Tensor] = {}
        for name, step in self.named_children():
            input = step(input)
            if name.startswith("relu"):
                maps[f"conv{name[4:]}"] = input
        return tuple(maps[name] for name in self.names)


def _make_step(step: _Step) -> nn.Module:
    match step:
        case "lrn":  # constants of Krizhevsky et al. 2012; the paper states none
            return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        case "channel_lrn":
            return ChannelNorm()
        case "pool2":
            return nn.MaxPool2d(2, 2)
        case "pool3":
            return nn.MaxPool2d(3, 3)
        case "pool_3_2":
            return nn.MaxPool2d(3, 2, ceil_mode=True)


def is_paper_net(name: str) -> bool:
    """Return whether the name of a backbone is one of `PAPER_NETS`, with or without ``/N``."""
    return name.partition("/")[0] in _NETS


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> LoadedTrunk:
    """Create a network of the paper, without its fully connected layers.

    Args:
        name: one of `PAPER_NETS`, with an optional divisor of the number of channels, such as ``zf5/4``.
        layers: ``"conv1"``, ``"conv2"``, ...; None for the last.
        weights: a safetensors file with tensors ``conv1.weight``, ..., or the ``model.safetensors`` of a run
            of `sppnet train classify`; None for random weights (`draw_weights`).
        pretrained: has no effect, because no weights of these networks are published.

    Raises:
        UserError: the divisor or a layer does not exist, or the weights do not match.
    """
    net, _, said = name.partition("/")
    divisor = int(said) if said.isdigit() else 0 if "/" in name else 1
    if divisor not in (1, 2, 4, 8, 16, 32):
        raise UserError("backbone", f"{net}, or {net}/2, /4, /8, /16 or /32 of its channels", repr(name))
    names = layers or (f"conv{len(_NETS[net])}",)
    for layer in names:
        if layer not in {f"conv{n}" for n in range(1, len(_NETS[net]) + 1)}:
            raise UserError(net, f"its layers conv1 to conv{len(_NETS[net])}", layer)
    trunk = PaperTrunk(net, divisor, names)
    draw_weights(trunk)
    if weights is not None:
        fill(trunk, read_weights(weights), weights)
    return LoadedTrunk(trunk, names, MEAN, STD)


def draw_weights(trunk: PaperTrunk) -> None:
    """Draw the initial weights of the SPP_net release.

    Weights are normal with a standard deviation of 0.01; biases are 0 in the first and third layer, else 1.
    In a narrower network the deviation grows so that signals keep their size.
    """
    came = 3
    with torch.no_grad():
        for number, conv in enumerate(_NETS[trunk.net], 1):
            module = getattr(trunk, f"conv{number}", None)
            if not isinstance(module, nn.Conv2d):
                return
            module.weight.normal_(0, 0.01 * (came / module.in_channels) ** 0.5)
            assert module.bias is not None
            module.bias.fill_(0.0 if number in (1, 3) else 1.0)
            came = conv.channels
