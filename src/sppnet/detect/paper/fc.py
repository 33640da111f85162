"""The fully connected layers above pooled rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sppnet.errors import UserError

_CLASSIFIER_STD = 0.01  # of the new last layer (paper section 3.5)


class FullyConnected(nn.Module):
    """fc6, fc7 and the last layer, of K classes and the background (paper section 3.5).

    Rows are first multiplied by ``scale``, so that their numbers have a mean square of one: fc6 learns as
    fast whatever the network's features measure.

    Args:
        length: of a row.
        width: neurons of fc6 and of fc7.
        classes: K.
        dropout: share of fc6 and fc7 that is left out in training.
    """

    def __init__(self, length: int, width: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.fc6 = nn.Linear(length, width)
        self.fc7 = nn.Linear(width, width)
        self.fc8 = nn.Linear(width, classes + 1)
        self.dropout = dropout
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def start(self, draw: torch.Generator, weights: Path | None = None) -> None:
        """Random weights by He's rule, or those of a file; the last layer's are N(0, 0.01) always.

        Raises:
            UserError: a file without these weights, or of other shapes.
        """
        with torch.no_grad():
            for layer in (self.fc6, self.fc7):
                spread = (2 / layer.in_features) ** 0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * spread)
                layer.bias.zero_()
            self.fc8.weight.copy_(torch.randn(self.fc8.weight.shape, generator=draw) * _CLASSIFIER_STD)
            self.fc8.bias.zero_()
            if weights is not None:
                self._fill(weights)

    def _fill(self, path: Path) -> None:
        try:
            given = load_file(path)
        except FileNotFoundError:
            raise UserError(path, "a safetensors file of fc6 and fc7", "no such file") from None
        except (OSError, SafetensorError) as error:
            raise UserError(path, "a safetensors file of fc6 and fc7", error) from error
        for name, place in self.named_parameters():
            if name.startswith("fc8"):
                continue
            if name not in given or given[name].shape != place.shape:
                got = "none" if name not in given else f"shape {list(given[name].shape)}"
                raise UserError(path, f"{name} of shape {list(place.shape)}", got)
            place.copy_(given[name])
        # Given layers expect the rows as they are.
        self.scale.fill_(1.0)

    def forward(self, rows: Tensor) -> Tensor:
        """``[N, D]`` to logits ``[N, K + 1]``, the background last."""
        six = functional.dropout(self.fc6(rows * self.scale).relu(), self.dropout, self.training)
        seven = functional.dropout(self.fc7(six).relu(), self.dropout, self.training)
        return self.fc8(seven)

    def features(self, rows: Tensor, layer: Literal["fc6", "fc7"]) -> Tensor:
        """``[N, D]`` to ``[N, width]``: ReLU(W x + b), as deployed (paper section 3.4)."""
        with torch.inference_mode():
            six = self.fc6(rows * self.scale).relu()
            return six if layer == "fc6" else self.fc7(six).relu()
