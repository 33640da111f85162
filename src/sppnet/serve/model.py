"""The computations of the server on one image."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.data.images import Pixels, pixels_to_image
from sppnet.errors import UserError
from sppnet.estimators import Estimator
from sppnet.features import extract, image_rows, pool_rows
from sppnet.ops.pyramid import LEVELS
from sppnet.structures import Boxes, FeatureMaps, ImageSize

_SHORT_SIDE = 224
_LONG_SIDE = 1333


class Served:
    """A fitted estimator for the server; thread-safe.

    Features are pooled at one scale, the smallest short side of the run, with the pyramid of the run.

    Args:
        estimator: a fitted estimator.

    Attributes:
        estimator: the estimator.
        backbone: its network.
        short_side: short side of resized images for features and maps; 0 for the size of the image.
        long_side: maximum long side of resized images.
        levels: bins along each side of each level of the pyramid.
    """

    def __init__(self, estimator: Estimator[Any]) -> None:
        self.estimator = estimator
        self.backbone = _backbone(estimator)
        options = {name.rpartition("__")[2]: value for name, value in estimator.get_params().items()}
        scales = [side for side in options.get("scales") or () if side]
        self.short_side = min(scales) if scales else int(options.get("short_side", _SHORT_SIDE))
        self.long_side = int(options.get("long_side") or _LONG_SIDE)
        self.levels = tuple(options.get("levels") or options.get("pyramid") or LEVELS)

    def describe(self) -> dict[str, object]:
        """Return kind, class names and geometry of the features as a JSON mapping."""
        channels = sum(layer.channels for layer in self.backbone.layers)
        return {
            "kind": self.estimator.kind,
            "names": list(self.estimator.names_),
            "features": {
                "length": channels * sum(n * n for n in self.levels),
                "levels": list(self.levels),
                "short_side": self.short_side,
            },
        }

    def predict(self, pixels: Pixels, threshold: float | None) -> dict[str, Any]:
        """Predict on one image; return the result as a JSON mapping."""
        result = self.estimator.predict(pixels, threshold=threshold)
        assert not isinstance(result, list)
        return cast("dict[str, Any]", result.to_dict())

    def features(self, pixels: Pixels, boxes: list[list[float]] | None) -> Tensor:
        """Compute features, float32 ``[N, D]``: one vector of the image, or one per box.

        Raises:
            UserError: a box is invalid.
        """
        maps = self._maps(pixels)
        if boxes is None:
            return image_rows(maps, self.levels).cpu()
        placed = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), maps.image)
        return pool_rows(maps, placed, self.levels).cpu()

    def strongest_maps(self, pixels: Pixels, count: int) -> list[dict[str, object]]:
        """Return the channels of the last layer with the highest standard deviation over the cells, as PNGs.

        Channels that are constant over the image contain no information about it.
        """
        last = self._maps(pixels).maps[-1]
        values = last.values.float().cpu()
        deviations = values.flatten(1).std(1, correction=0)
        order = torch.sort(deviations, descending=True, stable=True).indices[:count].tolist()
        return [
            {
                "layer": last.layer,
                "channel": channel,
                "height": values.shape[1],
                "width": values.shape[2],
                "png": _png(values[channel]),
            }
            for channel in order
        ]

    def warm_up(self) -> None:
        """Predict on a grey image, which compiles the kernels and detects runs that require image files.

        Raises:
            UserError: the run cannot predict on images in memory.
        """
        grey = np.full((96, 128, 3), 128, dtype=np.uint8)
        self.predict(grey, None)
        self.features(grey, [[0.0, 0.0, 64.0, 64.0]])

    def _maps(self, pixels: Pixels) -> FeatureMaps:
        scales = (self.short_side,) if self.short_side else None
        return extract(self.backbone, pixels_to_image(pixels), scales, long_side=self.long_side)


def encoded(features: Tensor) -> str:
    """Encode float32 features as base64 of little-endian bytes."""
    return base64.b64encode(features.numpy().astype("<f4").tobytes()).decode("ascii")


def check_boxes(boxes: list[list[float]], size: ImageSize) -> None:
    """Validate boxes before their image is queued.

    Raises:
        UserError: a box is invalid; it names the first one.
    """
    Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size)


def _backbone(estimator: Estimator[Any]) -> Backbone:
    network = getattr(estimator, "network_", None)
    backbone = network if isinstance(network, Backbone) else getattr(network, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise UserError(type(estimator).__name__, "a run with a backbone", "none")
    return backbone


def _png(values: Tensor) -> str:
    """Encode a map, scaled to the range from black to white, as a data URL of a PNG file."""
    low, high = float(values.min()), float(values.max())
    grey = ((values - low) / ((high - low) or 1.0) * 255).round().to(torch.uint8).numpy()
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
