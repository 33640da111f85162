"""The network in the package, cut after the last layer that is wanted."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sppnet.backbones.builtin import BuiltinNet, load_builtin
from sppnet.backbones.registry import Made
from sppnet.errors import UserError

LAYERS: tuple[str, ...] = ("stride8", "stride16")


class BuiltinTrunk(nn.Module):
    """One or both maps of the network in the package.

    Args:
        net: the network.
        names: ``"stride8"``, ``"stride16"`` or both, in the order in which the maps are given.
    """

    def __init__(self, net: BuiltinNet, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised ``[B, 3, H, W]`` to one map a layer."""
        if set(self.names) == {"stride8"}:  # the coarse half need not run
            fine = torch.relu(self.net.fine_head(self.net.fine(images)))
            return (fine,) * len(self.names)
        maps = dict(zip(LAYERS, self.net(images), strict=True))
        return tuple(maps[name] for name in self.names)


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> Made:
    """Make the network in the package.

    Args:
        name: ``"builtin"``.
        layers: some of ``LAYERS``; None takes both.
        weights: a safetensors file in place of the bundled one.
        pretrained: without a file, load the bundled weights; otherwise keep the random start.

    Raises:
        UserError: no such layer, or weights that do not fit.
    """
    names = layers or LAYERS
    for layer in names:
        if layer not in LAYERS:
            raise UserError(name, f"its layers {LAYERS[0]} and {LAYERS[1]}", layer)
    net = load_builtin(weights) if pretrained or weights is not None else BuiltinNet()
    return Made(BuiltinTrunk(net, names), names, BuiltinNet.MEAN, BuiltinNet.STD)
