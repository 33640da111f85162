"""A network of convolutions, a pooling layer and fully connected layers (He et al. 2015, section 3.1)."""

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
    """The max pool to 6x6 of a network without pyramid pooling, for square maps of one size.

    Maps of 13 cells are pooled with size 3 and stride 2, maps of 18 cells with size 3 and stride 3 (section
    3.1.1).

    Args:
        side: side of the map in cells, at least 6.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        if side < _SIDE:
            raise UserError(
                "network.pyramid", f"a map of at least {_SIDE} x {_SIDE} cells", f"{side} x {side}"
            )
        self.side = side
        step = side // _SIDE
        self.pool = nn.MaxPool2d(side - (_SIDE - 1) * step, step)

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool maps ``[B, C, side, side]``, or B maps ``[C, side, side]``, to ``[B, C * 36]``.

        Raises:
            UserError: the maps have another size.
        """
        batch = maps if isinstance(maps, Tensor) else torch.stack(list(maps))
        if batch.shape[2:] != (self.side, self.side):
            expected = f"maps of {self.side} x {self.side} cells, as the network has no pyramid pooling"
            raise UserError("images", expected, f"{batch.shape[2]} x {batch.shape[3]}")
        return self.pool(batch).flatten(1)


class PyramidNetwork(nn.Module):
    """Convolutions, a pooling layer and fully connected layers, from images to class scores.

    Args:
        backbone: the convolutions; the pooled features of several layers are concatenated.
        classes: number of classes.
        options: pooling and fully connected layers.
        side: side of the map of a training image in cells; only without pyramid pooling.
    """

    def __init__(self, backbone: Backbone, classes: int, options: NetworkOptions, side: int = 0) -> None:
        super().__init__()
        options.check()
        self.backbone = backbone
        self.options = options
        self.classes = classes
        self.pool: nn.Module = SpatialPyramidPool2d(options.pyramid) if options.pyramid else LastPool(side)
        bins = sum(n * n for n in options.pyramid) or _SIDE * _SIDE
        inputs = bins * sum(info.channels for info in backbone.layers)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, units in enumerate(options.hidden, _FIRST):
            layers[f"fc{number}"] = nn.Linear(inputs, units)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"drop{number}"] = nn.Dropout(options.dropout)
            inputs = units
        layers[f"fc{_FIRST + len(options.hidden)}"] = nn.Linear(inputs, classes)
        self.head = nn.Sequential(layers)

    @property
    def any_size(self) -> bool:
        """Whether the network accepts images of any size."""
        return bool(self.options.pyramid)

    def features(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the pooled features ``[B, D]``, the input of the first fully connected layer.

        Args:
            images: as in `forward`. Images of equal shape share a call of the backbone; maps of all sizes
                share a call of the pooling.
        """
        if isinstance(images, Tensor):
            return torch.cat([self.pool(maps) for maps in self.backbone(images)], 1)
        by_shape: dict[torch.Size, list[int]] = {}
        for i, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(i)
        indices = [i for group in by_shape.values() for i in group]
        by_layer: list[list[Tensor]] = [[] for _ in self.backbone.layers]
        for group in by_shape.values():
            for collected, maps in zip(
                by_layer, self.backbone(torch.stack([images[i] for i in group])), strict=True
            ):
                collected.extend(maps)
        order = sorted(range(len(indices)), key=indices.__getitem__)
        return torch.cat([self.pool([collected[i] for i in order]) for collected in by_layer], 1)

    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the logits of all classes.

        Args:
            images: ``[B, 3, H, W]``, RGB, 0..1, or a sequence of images ``[3, H_i, W_i]``.

        Returns:
            Logits ``[B, K]``.

        Raises:
            UserError: the size of the images does not fit the network.
        """
        return self.head(self.features(images))

    def spec(self) -> dict[str, Any]:
        """Return the description of the network without its weights, in JSON types."""
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
    """Make a network to train.

    Args:
        backbone: see `sppnet.backbones.load_backbone`; the classifier of the backbone is not used.
        classes: number of classes.
        options: pooling and fully connected layers.
        crop: side of the training images, which determines the map size without pyramid pooling.
        weights: local weights of the backbone.
        seed: seed of the initial weights.

    Raises:
        UserError: the backbone or the options are invalid.
    """
    options.check()
    convolutions = load_backbone(backbone, weights, seed=seed)
    side = 0
    if not options.pyramid:
        if len(convolutions.layers) > 1:
            raise UserError("network.pyramid", f"at least one level, as {backbone} has several maps", "none")
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


def _draw_he(root: nn.Module, classes: int = 0) -> None:
    for module in root.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Linear) and module.out_features == classes:
                nn.init.normal_(module.weight, 0, 0.01)  # the classes are equally probable at first
            assert module.bias is not None
            nn.init.zeros_(module.bias)
