"""Results of classification."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from sppnet.data import ImageSource
from sppnet.data.images import read_scaled_pixels
from sppnet.saving import save_result
from sppnet.structures import ImageSize

if TYPE_CHECKING:
    from PIL.Image import Image

_DRAWN_SIDE = 1024


@dataclass(frozen=True)
class ClassificationResult:
    """The most probable classes of one image.

    Attributes:
        labels: int64 ``[N]``, indices into ``names``, by descending probability.
        scores: float32 ``[N]``, probabilities, descending.
        names: the classifier's classes.
        source: the source of the image.
        error: always None; a `sppnet.estimators.FailedPrediction` has a `UserError` instead.

    Examples:
        >>> ClassificationResult.top(torch.tensor([0.2, 0.8]), ("cat", "dog"), "a.jpg", 0.5).name
        'dog'
    """

    labels: Tensor
    scores: Tensor
    names: tuple[str, ...]
    source: ImageSource
    error: ClassVar[None] = None

    @classmethod
    def top(
        cls, probabilities: Tensor, names: tuple[str, ...], source: ImageSource, threshold: float | None
    ) -> Self:
        """Select the classes of at least ``threshold`` from probabilities ``[K]``; the top five when None."""
        order = torch.sort(probabilities, descending=True, stable=True).indices
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names, source)

    @property
    def name(self) -> str:
        """The most probable class; empty if all are below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def plot(self) -> Image:
        """Draw the image with its three most probable classes; images above 16 megapixels are shrunk."""
        from sppnet.draw import draw_labels
        from sppnet.draw.fonts import drawn_name

        lines = [
            f"{drawn_name(self.names[label], label)} {score:.2f}"
            for label, score in zip(self.labels[:3].tolist(), self.scores[:3].tolist(), strict=True)
        ]
        pixels, _ = read_scaled_pixels(self.source, _drawn_size)
        return draw_labels(pixels, lines)

    def to_dict(self) -> dict[str, object]:
        """Return ``{"classes": [{"label", "name", "score"}]}`` in JSON types."""
        pairs = zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        classes = [
            {"label": label, "name": self.names[label], "score": round(score, 4)} for label, score in pairs
        ]
        return {"classes": classes}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, if the path ends in ``.json``, the content of `to_dict`.

        Returns:
            The path.

        Raises:
            UserError: the path is the source image, has no image extension, or cannot be written.
        """
        return save_result(path, self.source, self.plot, self.to_dict)


def _drawn_size(size: ImageSize) -> ImageSize:
    """Return the smallest size at which a large image is drawn; `read_scaled_pixels` keeps twice this."""
    return ImageSize(min(size.height, _DRAWN_SIDE), min(size.width, _DRAWN_SIDE))
