"""Adapter of the network in the package, truncated after the last requested layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sppnet.backbones.builtin import VERSIONS, BuiltinNet, load_builtin
from sppnet.backbones.registry import LoadedTrunk
from sppnet.errors import UserError

LAYERS: tuple[str, ...] = ("stride8", "stride16", "stride32")


class BuiltinTrunk(nn.Module):
    """Compute some maps of the network in the package.

    Args:
        net: the network.
        names: layers out of `LAYERS`, in the order of the outputs.
    """

    def __init__(self, net: BuiltinNet, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.order = tuple(LAYERS.index(name) for name in names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute one map per layer from normalised images ``[B, 3, H, W]``."""
        maps = self.net(images, max(self.order) + 1)
        return tuple(maps[i] for i in self.order)


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> LoadedTrunk:
    """Create the network in the package.

    Args:
        name: ``"builtin"``, or ``"builtin-1"`` for the architecture of version 1, whose weights are in runs.
        layers: layers out of ``LAYERS``; None for all. Version 1 has the first two.
        weights: a safetensors file instead of the bundled weights.
        pretrained: load the bundled weights if there is no file; otherwise weights are random.

    Raises:
        UserError: a layer does not exist, or the weights do not match.
    """
    version = 1 if name == "builtin-1" else 2
    known = LAYERS[: len(VERSIONS[version].channels)]
    names = layers or known
    for layer in names:
        if layer not in known:
            raise UserError(name, f"one of its layers {', '.join(known)}", layer)
    if pretrained and weights is None and version == 1:
        hint = "Choose --backbone builtin."
        raise UserError(name, "weights of version 1, which only runs contain", "none", hint)
    found = pretrained or weights is not None
    net = load_builtin(weights, version) if found else BuiltinNet(version=version)
    return LoadedTrunk(BuiltinTrunk(net, names), names, BuiltinNet.MEAN, BuiltinNet.STD)


def renamed(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a backbone with the name of its version, which older runs do not state."""
    layers = spec.get("layers")
    old = (
        str(spec.get("name")).removeprefix("random:") == "builtin"
        and isinstance(layers, list)
        and any(isinstance(i, dict) and i.get("channels") == VERSIONS[1].channels[0] for i in layers)
    )
    return spec | {"name": f"{spec['name']}-1"} if old else spec
