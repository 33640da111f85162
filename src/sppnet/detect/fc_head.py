"""The fully connected layers above pooled features."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.backbones.weights import FcWeights, read_fc_weights
from sppnet.detect.options import DetectorOptions
from sppnet.errors import UserError

_CLASSIFIER_STD = 0.01  # of the new last layer (He et al. 2015, section 4.1)


class FullyConnected(nn.Module):
    """fc6, fc7 and a last layer of K classes and the background (He et al. 2015, section 4.1).

    Features are multiplied by ``scale``, so that their mean square is one and the learning rate of fc6 does
    not depend on the range of the features.

    Args:
        length: ``D``, length of a feature vector.
        widths: numbers of units of fc6 and fc7.
        classes: number of classes K.
        dropout: probability with which units of fc6 and fc7 are dropped in training.
    """

    def __init__(self, length: int, widths: tuple[int, int], classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.fc6 = nn.Linear(length, widths[0])
        self.fc7 = nn.Linear(widths[0], widths[1])
        self.fc8 = nn.Linear(widths[1], classes + 1)
        self.dropout = dropout
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def start(self, draw: torch.Generator, given: FcWeights | None = None) -> None:
        """Initialise fc6 and fc7 by He et al.'s method or with given weights, and fc8 with N(0, 0.01).

        Raises:
            UserError: the given layers have other shapes.
        """
        with torch.no_grad():
            for layer in (self.fc6, self.fc7):
                spread = (2 / layer.in_features) ** 0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * spread)
                layer.bias.zero_()
            self.fc8.weight.copy_(torch.randn(self.fc8.weight.shape, generator=draw) * _CLASSIFIER_STD)
            self.fc8.bias.zero_()
            if given is not None:
                self._fill(given)

    def _fill(self, given: FcWeights) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("fc8"):
                continue
            value = given.tensors[name]
            if value.shape != parameter.shape:
                expected = f"{name} of shape {list(parameter.shape)}, for this network, layer and levels"
                raise UserError(given.path, expected, f"shape {list(value.shape)}")
            parameter.copy_(value)
        # Pretrained layers expect features in the range of their training.
        self.scale.fill_(1.0)

    def forward(self, rows: Tensor) -> Tensor:
        """Map features ``[N, D]`` to logits ``[N, K + 1]``, the background last."""
        six = functional.dropout(self.fc6(rows * self.scale).relu(), self.dropout, self.training)
        seven = functional.dropout(self.fc7(six).relu(), self.dropout, self.training)
        return self.fc8(seven)

    def features(self, rows: Tensor, layer: Literal["fc6", "fc7"]) -> Tensor:
        """Map features ``[N, D]`` to ReLU(W x + b) of a layer (SPP_net release, spp_poolX_to_fcX.m)."""
        with torch.inference_mode():
            six = self.fc6(rows * self.scale).relu()
            return six if layer == "fc6" else self.fc7(six).relu()


def with_pretrained_fc(options: DetectorOptions, weights: Path | str | None) -> DetectorOptions:
    """Return the options of a fit, with the file of the pretrained fc6 and fc7 that it starts from.

    Args:
        options: options of the detector.
        weights: weights of the backbone; those of a run of ``sppnet train classify`` have fc6 and fc7 too.

    Raises:
        UserError: the file has no fc6 and fc7, or they were trained with other levels.
    """
    fc = options.fc
    if fc.features == "pool":
        return options
    path, required = fc.fc_weights, True
    if path is None and weights is not None and not fc.random_start:
        path, required = Path(weights), False
    given = None if path is None else read_fc_weights(path, required=required)
    if given is None:
        return options
    if given.levels is not None and given.levels != options.pool.levels:
        wanted = f"the levels {given.levels} that fc6 in {given.path} was trained with"
        hint = "Pass these levels, or random_start to take the convolutions alone."
        raise UserError("options.levels", wanted, options.pool.levels, hint)
    return options.replace(fc_weights=given.path)
