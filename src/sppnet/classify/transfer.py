"""Features of a pretrained network for other data, and linear SVMs on them (sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.backbones import Backbone
from sppnet.classify.network import PyramidNetwork
from sppnet.classify.samples import bounded_shape
from sppnet.errors import UserError
from sppnet.features import resize, resized_size
from sppnet.learn import LinearModel, SvmOptions, fit_linear_svm, one_versus_rest
from sppnet.ops import spatial_pyramid_pool
from sppnet.structures import ImageSize

_RIDGE = 1e-5
Sight = Literal["crop", "full", "warp"]
"""Input of the network: the centre crop, the whole image in its shape, or warped to a square."""


@dataclass(frozen=True)
class Feature:
    """A feature vector of an image.

    Attributes:
        name: as a table calls it.
        layer: one of the backbone's layers, or a fully connected layer such as ``"fc6"``.
        levels: of the pyramid that the layer's map is pooled by; none: the map as it is, which takes images
            of one size.
    """

    name: str
    layer: str
    levels: tuple[int, ...] = ()


def see(image: Tensor, sight: Sight, side: int, backbone: Backbone) -> Tensor:
    """Return the network's input ``[1, 3, h, w]`` for an image.

    Args:
        image: float32 ``[3, H, W]``, RGB, 0..1.
        sight: ``crop``: short side ``side``, then its centre square; ``full``: short side ``side``, shapes
            beyond `bounded_shape` squeezed to it; ``warp``: a square of ``side``, whatever the shape.
        side: in pixels.
        backbone: for the sizes that it takes.
    """
    size = ImageSize(image.shape[1], image.shape[2])
    square = ImageSize(side, side)
    wanted = square if sight == "warp" else resized_size(bounded_shape(size), side, backbone)
    resized = resize(image[None].to(backbone.device), wanted, antialias=True)
    if sight != "crop":
        return resized
    top, left = (wanted.height - side) // 2, (wanted.width - side) // 2
    return resized[:, :, top : top + side, left : left + side]


def image_rows(
    network: Backbone | PyramidNetwork, given: Tensor, features: Sequence[Feature]
) -> dict[str, Tensor]:
    """Return the features of one image, each of norm 1.

    Args:
        network: a backbone with the layers that the features name, or for fully connected layers a whole
            network, in evaluation mode.
        given: ``[1, 3, h, w]``, what `see` returns.
        features: which.

    Returns:
        By the feature's name float32 ``[D]`` on the CPU.

    Raises:
        UserError: a layer that there is not.
    """
    whole = network if isinstance(network, PyramidNetwork) else None
    backbone = network.backbone if isinstance(network, PyramidNetwork) else network
    with torch.inference_mode():
        outputs = backbone(given)
        maps = dict(zip((info.name for info in backbone.layers), outputs, strict=True))
        units = {} if whole is None else _units(whole, maps)
        found: dict[str, Tensor] = {}
        for feature in features:
            if feature.layer in maps:
                values = maps[feature.layer]
                row = spatial_pyramid_pool(values, feature.levels) if feature.levels else values.flatten(1)
            elif feature.layer in units:
                row = units[feature.layer]
            else:
                known = ", ".join([*maps, *units])
                raise UserError("features", f"one of the layers {known}", feature.layer)
            found[feature.name] = functional.normalize(row[0].float().cpu(), dim=0)
    return found


def _units(network: PyramidNetwork, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of all fully connected layers but the last, after their ReLU."""
    last = list(maps.values())[-1]
    x = network.pool(last.float())
    units: dict[str, Tensor] = {}
    for name, step in network.head.named_children():
        x = step(x)
        if name.startswith("relu"):
            units[f"fc{name[4:]}"] = x
    return units


def in_own_basis(rows: Tensor) -> Tensor:
    """Return rows with the same inner products as ``rows``, up to rounding, no longer than their number.

    A linear SVM depends on inner products alone, so its scores stay the same; many splits of one data set are
    then fitted in a fraction of the time.

    Args:
        rows: float32 ``[N, D]``.

    Returns:
        float32 ``[N, min(N, D)]``.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    gram = (rows @ rows.T).double()
    # Without it, linearly dependent rows, such as those of an image that occurs twice, have no factor.
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    return torch.linalg.cholesky(gram).float()


def random_split(labels: Tensor, train: int, test: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw indices of ``train`` images of each class, and of up to ``test`` others.

    Raises:
        UserError: a class with no more than ``train`` images.
    """
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in range(int(labels.max()) + 1):
        own = (labels == label).nonzero()[:, 0]
        if len(own) <= train:
            raise UserError(f"class {label}", f"more than {train} images", len(own))
        own = own[torch.randperm(len(own), generator=chance)]
        parts[0].append(own[:train])
        parts[1].append(own[train : train + test])
    return torch.cat(parts[0]), torch.cat(parts[1])


def svm_accuracy(rows: Tensor, labels: Tensor, train: Tensor, test: Tensor, cost: float) -> float:
    """Return the mean class accuracy on the rows ``test`` of SVMs fitted on the rows ``train``.

    Args:
        rows: ``[N, D]``.
        labels: int64 ``[N]``; every class has rows in both parts.
        train: positions.
        test: positions.
        cost: the SVMs' C.
    """
    classes = int(labels.max()) + 1
    model = _fit(rows[train], one_versus_rest(labels[train], classes), cost)
    right = (model.scores(rows[test]).argmax(1) == labels[test]).double()
    counts = torch.bincount(labels[test], minlength=classes)
    return float((torch.bincount(labels[test], right, minlength=classes) / counts).mean())


def _fit(rows: Tensor, targets: Tensor, cost: float) -> LinearModel:
    return fit_linear_svm(rows, targets, SvmOptions(C=cost))


def svm_scores(rows: Tensor, targets: Tensor, tested: Tensor, cost: float) -> Tensor:
    """Return decision scores ``[M, K]`` of SVMs fitted on rows with targets +1, -1 or 0 (not used)."""
    return _fit(rows, targets, cost).scores(tested)
