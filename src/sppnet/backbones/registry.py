"""Sources of backbones. A new source is one module with a ``make`` function and one line in `ADAPTERS`."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from torch import nn

from sppnet.errors import UserError


@dataclass(frozen=True)
class LoadedTrunk:
    """A network without classifier, loaded by an adapter.

    Attributes:
        trunk: module that computes maps ``[B, C, h, w]``, a tuple of one per layer, from normalised images
            ``[B, 3, H, W]``.
        layers: names of the layers.
        mean: mean of red, green and blue (0..1), which is subtracted.
        std: standard deviation of red, green and blue, by which they are divided.
        patch: side of the patches of a vision transformer, of which every cell is one; 0 for networks whose
            grids are measured.
    """

    trunk: nn.Module
    layers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int = 0


class AdapterFunction(Protocol):
    """A function that creates a network by its name."""

    def __call__(
        self, name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool
    ) -> LoadedTrunk:
        """Create a network.

        Args:
            name: name of the network, without ``random:``.
            layers: names of the requested layers; None for the default of the network.
            weights: a safetensors file or a run folder.
            pretrained: load published weights if there is no file; otherwise weights are random.

        Raises:
            UserError: the network or a layer does not exist, or weights are not available or do not match.
        """
        ...


@dataclass(frozen=True)
class Adapter:
    """A source of networks.

    Attributes:
        pattern: a regular expression that matches the full names of its networks.
        forms: the forms of its names, for error messages and help.
        module: the module with the function ``make``, imported on demand.
    """

    pattern: str
    forms: str
    module: str

    def make(self) -> AdapterFunction:
        """Import the module and return its function."""
        return cast("AdapterFunction", importlib.import_module(self.module).make)


ADAPTERS: list[Adapter] = [
    Adapter("builtin(-1)?", "builtin", "sppnet.backbones.builtin_trunk"),
    Adapter("lite[02]", "lite0, lite2", "sppnet.backbones.lite_nets"),
    Adapter("torchvision:.+", "torchvision:NAME", "sppnet.backbones.torchvision_nets"),
    Adapter("timm:.+", "timm:NAME", "sppnet.backbones.timm_nets"),
    Adapter(
        "(zf5|zf5-small|convnet5|overfeat5|overfeat7)(/.*)?",
        "zf5, convnet5, overfeat5 or overfeat7",
        "sppnet.backbones.paper_nets",
    ),
]
"""All adapters, in the order in which names are matched."""


def find_adapter(name: str) -> Adapter:
    """Return the adapter of a name.

    Raises:
        UserError: the name matches no adapter.

    Examples:
        >>> find_adapter("timm:resnet18").forms
        'timm:NAME'
    """
    for adapter in ADAPTERS:
        if re.fullmatch(adapter.pattern, name):
            return adapter
    forms = ", ".join(adapter.forms for adapter in ADAPTERS)
    raise UserError("backbone", f"{forms}, with random: before it for random weights", repr(name))
