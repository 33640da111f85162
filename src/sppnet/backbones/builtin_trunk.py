"""Adapter of the network in the package, truncated after the last requested layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sppnet.backbones.builtin import BuiltinNet, load_builtin
from sppnet.backbones.registry import LoadedTrunk
from sppnet.errors import UserError

LAYERS: tuple[str, ...] = ("stride8", "stride16")


class BuiltinTrunk(nn.Module):
    """Compute one or both maps of the network in the package.

    Args:
        net: the network.
        names: ``"stride8"``, ``"stride16"`` or both, in the order of the outputs.
    """

    def __init__(self, net: BuiltinNet, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute one map per layer from normalised images ``[B, 3, H, W]``."""
        if set(self.names) == {"stride8"}:  # without the layers at stride 16
            fine = torch.relu(self.net.fine_head(self.net.fine(images)))
            return (fine,) * len(self.names)
        maps = dict(zip(LAYERS, self.net(images), strict=True))
        return tuple(maps[name] for name in self.names)


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> LoadedTrunk:
    """Create the network in the package.

    Args:
        name: ``"builtin"``.
        layers: layers out of ``LAYERS``; None for both.
        weights: a safetensors file instead of the bundled weights.
        pretrained: load the bundled weights if there is no file; otherwise weights are random.

    Raises:
        UserError: a layer does not exist, or the weights do not match.
    """
    names = layers or LAYERS
    for layer in names:
        if layer not in LAYERS:
            raise UserError(name, f"its layers {LAYERS[0]} and {LAYERS[1]}", layer)
    net = load_builtin(weights) if pretrained or weights is not None else BuiltinNet()
    return LoadedTrunk(BuiltinTrunk(net, names), names, BuiltinNet.MEAN, BuiltinNet.STD)
