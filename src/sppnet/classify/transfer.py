"""Features of a pretrained network and linear SVMs on them (He et al. 2015, sections 3.2 and 3.3)."""

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
"""Input of the network: the centre crop, the full image, or the image warped to a square."""


@dataclass(frozen=True)
class Feature:
    """A feature vector of an image.

    Attributes:
        name: its name in a table.
        layer: a layer of the backbone, or a fully connected layer such as ``"fc6"``.
        levels: levels of the pyramid that pools the map of the layer; if empty, the map is flattened, which
            requires images of one size.
    """

    name: str
    layer: str
    levels: tuple[int, ...] = ()


def see(image: Tensor, sight: Sight, side: int, backbone: Backbone) -> Tensor:
    """Return the network's input ``[1, 3, h, w]`` for an image.

    Args:
        image: float32 ``[3, H, W]``, RGB, 0..1.
        sight: ``crop``: the image is resized to the short side ``side``, and its centre square is cropped.
            ``full``: the image is resized to the short side ``side``, with a `bounded_shape`. ``warp``: the
            image is resized to a square of ``side``.
        side: the side in pixels.
        backbone: the network, whose input sizes are respected.
    """
    size = ImageSize(image.shape[1], image.shape[2])
    square = ImageSize(side, side)
    expected = square if sight == "warp" else resized_size(bounded_shape(size), side, backbone)
    resized = resize(image[None].to(backbone.device), expected, antialias=True)
    if sight != "crop":
        return resized
    top, left = (expected.height - side) // 2, (expected.width - side) // 2
    return resized[:, :, top : top + side, left : left + side]


def image_rows(
    network: Backbone | PyramidNetwork, given: Tensor, features: Sequence[Feature]
) -> dict[str, Tensor]:
    """Return the features of one image, each of norm 1.

    Args:
        network: a backbone with the layers of the features or, for fully connected layers, a whole network in
            evaluation mode.
        given: the input ``[1, 3, H, W]`` from `see`.
        features: the features to compute.

    Returns:
        Feature vectors by name, float32 ``[D]``, on the CPU.

    Raises:
        UserError: a layer does not exist.
    """
    whole = network if isinstance(network, PyramidNetwork) else None
    backbone = network.backbone if isinstance(network, PyramidNetwork) else network
    with torch.inference_mode():
        outputs = backbone(given)
        maps = dict(zip((info.name for info in backbone.layers), outputs, strict=True))
        units = {} if whole is None else _units(whole, maps)
        vectors: dict[str, Tensor] = {}
        for feature in features:
            if feature.layer in maps:
                values = maps[feature.layer]
                vector = spatial_pyramid_pool(values, feature.levels) if feature.levels else values.flatten(1)
            elif feature.layer in units:
                vector = units[feature.layer]
            else:
                known = ", ".join([*maps, *units])
                raise UserError("features", f"one of the layers {known}", feature.layer)
            vectors[feature.name] = functional.normalize(vector[0].float().cpu(), dim=0)
    return vectors


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


def in_own_basis(features: Tensor) -> Tensor:
    """Return features with the same inner products, up to rounding, and a length of at most N.

    A linear SVM depends on inner products only, so that its scores do not change, but the SVMs of the splits
    of a data set are fitted faster if D exceeds N.

    Args:
        features: features, float32 ``[N, D]``.

    Returns:
        float32 ``[N, min(N, D)]``.
    """
    if features.shape[1] <= features.shape[0]:
        return features
    gram = (features @ features.T).double()
    # The ridge makes the matrix positive definite for linearly dependent features, such as duplicate images.
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    return torch.linalg.cholesky(gram).float()


def random_split(labels: Tensor, train: int, test: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``train`` images of each class for training, and up to ``test`` others for testing.

    Returns:
        Indices of the training images and of the test images.

    Raises:
        UserError: a class has no more than ``train`` images.
    """
    splits: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        if len(members) <= train:
            raise UserError(f"class {label}", f"more than {train} images", len(members))
        members = members[torch.randperm(len(members), generator=rng)]
        splits[0].append(members[:train])
        splits[1].append(members[train : train + test])
    return torch.cat(splits[0]), torch.cat(splits[1])


def svm_accuracy(features: Tensor, labels: Tensor, train: Tensor, test: Tensor, cost: float) -> float:
    """Return the mean class accuracy of SVMs.

    Args:
        features: features ``[N, D]``.
        labels: int64 ``[N]``; every class has training and test images.
        train: indices of the training images.
        test: indices of the test images.
        cost: C of the SVMs.
    """
    classes = int(labels.max()) + 1
    model = _fit(features[train], one_versus_rest(labels[train], classes), cost)
    right = (model.scores(features[test]).argmax(1) == labels[test]).double()
    counts = torch.bincount(labels[test], minlength=classes)
    return float((torch.bincount(labels[test], right, minlength=classes) / counts).mean())


def _fit(features: Tensor, targets: Tensor, cost: float) -> LinearModel:
    return fit_linear_svm(features, targets, SvmOptions(C=cost))


def svm_scores(features: Tensor, targets: Tensor, tested: Tensor, cost: float) -> Tensor:
    """Return decision scores ``[M, K]`` of SVMs.

    Args:
        features: features ``[N, D]`` for fitting.
        targets: ``[N, K]``: +1, -1, or 0 for samples that are not used.
        tested: features ``[M, D]`` to score.
        cost: C of the SVMs.
    """
    return _fit(features, targets, cost).scores(tested)
