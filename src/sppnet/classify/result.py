"""What `Classifier.predict` returns for an image."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from sppnet.data import ImageSource, read_pixels
from sppnet.files import make_folder, write_text

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ClassificationResult:
    """The classes of one image, top first.

    Attributes:
        labels: int64 ``[n]``, positions in ``names``.
        scores: float32 ``[n]``, probabilities, descending.
        names: the classifier's classes.
        source: the image as it was given.
    """

    labels: Tensor
    scores: Tensor
    names: tuple[str, ...]
    source: ImageSource

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
        """The image with its top classes written on it."""
        from sppnet.draw import draw_labels

        lines = [
            f"{self.names[label]} {score:.2f}"
            for label, score in zip(self.labels[:3].tolist(), self.scores[:3].tolist(), strict=True)
        ]
        return draw_labels(read_pixels(self.source), lines)

    def to_dict(self) -> dict[str, object]:
        """``{"classes": [{"label", "name", "score"}]}``, as JSON takes it."""
        pairs = zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        classes = [
            {"label": label, "name": self.names[label], "score": round(score, 4)} for label, score in pairs
        ]
        return {"classes": classes}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, where the path ends in ``.json``, `to_dict`; returns the path."""
        from sppnet.draw import save_image

        target = Path(path)
        if target.suffix.lower() == ".json":
            make_folder(target.parent)
            write_text(target, json.dumps(self.to_dict(), indent=2))
        else:
            save_image(target, self.plot())
        return target
