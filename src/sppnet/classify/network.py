"""A whole network: convolutions, one pooling layer, fully connected layers (paper sections 1.1 and 1.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.backbones import Backbone, load_backbone
from sppnet.backbones.paper_nets import PaperTrunk, draw_weights
from sppnet.backbones.torchvision_nets import STD
from sppnet.classify.network_options import NetworkOptions
from sppnet.errors import UserError
from sppnet.nn import SpatialPyramidPool2d

_SIDE = 6
_FIRST = 6


class LastPool(nn.Module):
    """The pool of a network without pyramid pooling: 6x6 windows over a square map of one size.

    On 13 cells a window has 3 and steps by 2, on 18 it has 3 and steps by 3 (paper section 1.1).

    Args:
        side: cells of the map along a side, at least 6.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        if side < _SIDE:
            raise UserError("network.pyramid", f"a map of at least {_SIDE} cells a side", side)
        self.side = side
        step = side // _SIDE
        self.pool = nn.MaxPool2d(side - (_SIDE - 1) * step, step)

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """``[B, C, side, side]``, or B maps ``[C, side, side]``, to ``[B, C * 36]``.

        Raises:
            UserError: maps of another size.
        """
        batch = maps if isinstance(maps, Tensor) else torch.stack(list(maps))
        if batch.shape[2:] != (self.side, self.side):
            wanted = (
                f"maps of {self.side} x {self.side}, the only size for fully connected layers without SPP"
            )
            raise UserError("images", wanted, f"{batch.shape[2]} x {batch.shape[3]}")
        return self.pool(batch).flatten(1)


class PyramidNetwork(nn.Module):
    """Convolutions, a pooling layer and fully connected layers, from images to class scores.

    Args:
        backbone: the convolutions; the rows of several layers are joined.
        classes: how many.
        options: pooling and fully connected layers.
        side: cells along a side of the map of a training image; only without pyramid pooling.
    """

    def __init__(self, backbone: Backbone, classes: int, options: NetworkOptions, side: int = 0) -> None:
        super().__init__()
        options.check()
        self.backbone = backbone
        self.options = options
        self.classes = classes
        self.pool: nn.Module = SpatialPyramidPool2d(options.pyramid) if options.pyramid else LastPool(side)
        bins = sum(n * n for n in options.pyramid) or _SIDE * _SIDE
        came = bins * sum(info.channels for info in backbone.layers)
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        for number, units in enumerate(options.hidden, _FIRST):
            steps[f"fc{number}"] = nn.Linear(came, units)
            steps[f"relu{number}"] = nn.ReLU()
            steps[f"drop{number}"] = nn.Dropout(options.dropout)
            came = units
        steps[f"fc{_FIRST + len(options.hidden)}"] = nn.Linear(came, classes)
        self.head = nn.Sequential(steps)

    @property
    def any_size(self) -> bool:
        """Whether images of any size may come."""
        return bool(self.options.pyramid)

    def rows(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """What the first fully connected layer sees: ``[B, D]``.

        Args:
            images: as in `forward`. Images of one shape go through the convolutions together; maps of all
                sizes go through one call of the pooling.
        """
        if isinstance(images, Tensor):
            return torch.cat([self.pool(maps) for maps in self.backbone(images)], 1)
        together: dict[torch.Size, list[int]] = {}
        for i, image in enumerate(images):
            together.setdefault(image.shape, []).append(i)
        places: list[int] = [i for group in together.values() for i in group]
        of_layer: list[list[Tensor]] = [[] for _ in self.backbone.layers]
        for group in together.values():
            for known, maps in zip(
                of_layer, self.backbone(torch.stack([images[i] for i in group])), strict=True
            ):
                known.extend(maps)
        order = sorted(range(len(places)), key=places.__getitem__)
        return torch.cat([self.pool([known[i] for i in order]) for known in of_layer], 1)

    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Class scores, before the softmax.

        Args:
            images: ``[B, 3, H, W]``, RGB, 0..1, or a sequence of images ``[3, H_i, W_i]``.

        Returns:
            ``[B, K]``.

        Raises:
            UserError: images that the network cannot take.
        """
        return self.head(self.rows(images))

    def spec(self) -> dict[str, Any]:
        """What `network_from_spec` needs beside the weights; JSON can hold it."""
        return {
            "backbone": self.backbone.spec(),
            "classes": self.classes,
            "side": getattr(self.pool, "side", 0),
        }


def make_network(
    backbone: str,
    classes: int,
    options: NetworkOptions,
    crop: int,
    weights: Path | None = None,
    seed: int = 0,
) -> PyramidNetwork:
    """A network to train.

    Args:
        backbone: as `sppnet.backbones.load_backbone` takes it; its own classifier is left away.
        classes: how many.
        options: what replaces it.
        crop: side of the training images, which without pyramid pooling decides the map's size.
        weights: local weights of the backbone.
        seed: of what is random.

    Raises:
        UserError: a backbone or options at fault.
    """
    options.check()
    convolutions = load_backbone(backbone, weights, seed=seed)
    side = 0
    if not options.pyramid:
        if len(convolutions.layers) > 1:
            raise UserError("network.pyramid", f"levels, as {backbone} has several maps", "none")
        with torch.no_grad():
            side = convolutions(torch.zeros(1, 3, crop, crop))[0].shape[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PyramidNetwork(convolutions, classes, options, side)
        fresh = weights is None and isinstance(convolutions.trunk, PaperTrunk)
        if options.start == "he":
            _draw_he(network.head, classes)
            if fresh:
                convolutions.std.copy_(torch.tensor(STD).view(1, 3, 1, 1))
                _draw_he(convolutions.trunk)
        else:
            _draw_paper(network.head)
            if fresh:
                assert isinstance(convolutions.trunk, PaperTrunk)
                draw_weights(convolutions.trunk)
    return network


def _draw_paper(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.ones_(module.bias)


def _draw_he(part: nn.Module, classes: int = 0) -> None:
    for module in part.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Linear) and module.out_features == classes:
                nn.init.normal_(module.weight, 0, 0.01)  # all classes equally likely at first
            assert module.bias is not None
            nn.init.zeros_(module.bias)
