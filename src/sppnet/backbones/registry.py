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
class Made:
    """What an adapter makes.

    Attributes:
        trunk: normalised ``[B, 3, H, W]`` to a tuple of maps ``[B, C, h, w]``, one per layer.
        layers: names of the maps.
        mean: what is subtracted from red, green and blue in 0..1.
        std: what they are divided by afterwards.
    """

    trunk: nn.Module
    layers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Make(Protocol):
    """Makes a network by its name."""

    def __call__(
        self, name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool
    ) -> Made:
        """Make a network.

        Args:
            name: what the user asked for, without ``random:``.
            layers: names of the maps wanted; None takes the network's default.
            weights: a safetensors file or a run folder.
            pretrained: without a file, take published weights; otherwise keep the random start.

        Raises:
            UserError: no such network or layer, or weights that cannot be had or do not fit.
        """
        ...


@dataclass(frozen=True)
class Adapter:
    """One source of networks.

    Attributes:
        pattern: a regular expression that its names match as a whole.
        forms: how its names are written, for messages and help.
        module: the module whose ``make`` makes them, imported when it is needed.
    """

    pattern: str
    forms: str
    module: str

    def make(self) -> Make:
        """Import the module and return its function."""
        return cast("Make", importlib.import_module(self.module).make)


ADAPTERS: list[Adapter] = [
    Adapter("builtin", "builtin", "sppnet.backbones.builtin_trunk"),
    Adapter("lite[02]", "lite0, lite2", "sppnet.backbones.lite_nets"),
    Adapter("torchvision:.+", "torchvision:NAME", "sppnet.backbones.torchvision_nets"),
    Adapter("timm:.+", "timm:NAME", "sppnet.backbones.timm_nets"),
    Adapter(
        "(zf5|zf5-small|convnet5|overfeat5|overfeat7)(/.*)?",
        "zf5, convnet5, overfeat5 or overfeat7",
        "sppnet.backbones.paper_nets",
    ),
]
"""All sources, in the order in which a name is matched."""


def find_adapter(name: str) -> Adapter:
    """Return the adapter of a name.

    Raises:
        UserError: no adapter takes it.

    Examples:
        >>> find_adapter("timm:resnet18").forms
        'timm:NAME'
    """
    for adapter in ADAPTERS:
        if re.fullmatch(adapter.pattern, name):
            return adapter
    forms = ", ".join(adapter.forms for adapter in ADAPTERS)
    raise UserError("backbone", f"{forms}, with random: before it for random weights", repr(name))
