"""What `Classifier.predict` returns for an image."""

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
    """The classes of one image, top first.

    Attributes:
        labels: int64 ``[n]``, positions in ``names``.
        scores: float32 ``[n]``, probabilities, descending.
        names: the classifier's classes.
        source: the image as it was given.
        error: always None; a `sppnet.estimators.FailedPrediction` has one.

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
        """From the probabilities ``[K]`` of all classes those of at least ``threshold``; five when None."""
        order = torch.sort(probabilities, descending=True, stable=True).indices
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names, source)

    @property
    def name(self) -> str:
        """The top class; empty where all were below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def plot(self) -> Image:
        """The image with its top classes written below it; one of more than 16 megapixels is shrunk."""
        from sppnet.draw import draw_labels
        from sppnet.draw.fonts import drawn_name

        lines = [
            f"{drawn_name(self.names[label], label)} {score:.2f}"
            for label, score in zip(self.labels[:3].tolist(), self.scores[:3].tolist(), strict=True)
        ]
        pixels, _ = read_scaled_pixels(self.source, _drawn_size)
        return draw_labels(pixels, lines)

    def to_dict(self) -> dict[str, object]:
        """``{"classes": [{"label", "name", "score"}]}``, as JSON takes it."""
        pairs = zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        classes = [
            {"label": label, "name": self.names[label], "score": round(score, 4)} for label, score in pairs
        ]
        return {"classes": classes}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, where the path ends in ``.json``, `to_dict`; returns the path.

        Raises:
            UserError: the path is the image itself, has no ending of an image, or cannot be written.
        """
        return save_result(path, self.source, self.plot, self.to_dict)


def _drawn_size(size: ImageSize) -> ImageSize:
    """A large image is drawn with sides of at least twice this."""
    return ImageSize(min(size.height, _DRAWN_SIDE), min(size.width, _DRAWN_SIDE))
