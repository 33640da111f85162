"""What `Classifier.predict` returns for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from sppnet._records import classification_record
from sppnet.data import ImageSource
from sppnet.data.images import read_scaled_pixels
from sppnet.estimators.results import PredictionResult, drawn_size, optional_module
from sppnet.structures import ClassificationItem

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class ClassificationResult(PredictionResult):
    """The classes of one image, best first; ``N`` is their number.

    A result is sliced with indices and masks, iterated, compared with ``==`` and merged with ``+``.

    Attributes:
        labels: int64 ``[N]``, positions in ``names``.
        scores: float32 ``[N]``, probabilities, descending.
        names: the classifier's classes.
        source: the image as it was given.
        error: always None; a `sppnet.estimators.FailedPrediction` has one.

    Examples:
        >>> ClassificationResult.top(torch.tensor([0.2, 0.8]), ("cat", "dog"), "a.jpg", 0.5).name
        'dog'
        >>> result = ClassificationResult.top(torch.tensor([0.2, 0.8]), ("cat", "dog"), "a.jpg", None)
        >>> [one.name for one in result], result[:1] + result[1:] == result
        (['dog', 'cat'], True)
    """

    entries: ClassVar[str] = "classes"
    labels: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    scores: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    names: tuple[str, ...]  # pyright: ignore[reportIncompatibleMethodOverride]
    source: ImageSource

    @classmethod
    def top(
        cls, probabilities: Tensor, names: tuple[str, ...], source: ImageSource, threshold: float | None
    ) -> Self:
        """Return the classes whose probability is at least ``threshold``; the best five when None.

        Args:
            probabilities: ``[K]``.
            names: the K class names.
            source: the image.
            threshold: minimum probability.
        """
        order = torch.sort(probabilities, descending=True, stable=True).indices
        order = order[:5] if threshold is None else order[probabilities[order] >= threshold]
        return cls(order, probabilities[order], names, source)

    @property
    def name(self) -> str:
        """The most probable class; empty if all are below the threshold."""
        return self.names[int(self.labels[0])] if len(self.labels) else ""

    def _replaced(self, columns: Mapping[str, Tensor]) -> Self:
        return replace(self, labels=columns["labels"], scores=columns["scores"])

    def _columns(self) -> dict[str, Tensor]:
        return {"scores": self.scores, "labels": self.labels}

    def _context(self) -> tuple[object, ...]:
        return (self.names,)

    def _merge_order(self, columns: Mapping[str, Tensor]) -> Tensor:
        order = super()._merge_order(columns)
        first: dict[int, int] = {}
        for index, label in enumerate(columns["labels"][order].tolist()):
            first.setdefault(label, index)
        return order[torch.tensor(list(first.values()), dtype=torch.int64)]

    def plot(self) -> Image:
        """Draw the image with its top classes below it; images of more than 16 megapixels are reduced."""
        from sppnet.draw import draw_labels
        from sppnet.draw.canvas import class_lines

        lines = class_lines(self.labels.tolist(), self.scores.tolist(), self.names)
        pixels, _ = read_scaled_pixels(self.source, drawn_size)
        return draw_labels(pixels, lines)

    def to_dict(self) -> dict[str, object]:
        """Return ``{"classes": [{"label", "name", "score"}]}`` for JSON."""
        return classification_record(self.labels.tolist(), self.scores.tolist(), self.names)

    def report_image(self, item: ClassificationItem, names: Sequence[str]) -> tuple[Image, str]:
        """Draw the image with its top classes; return file name and true class as caption too."""
        return self.plot(), f"{item.path.name}: {names[item.label]}"

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, object]]:
        """Return one ``{"image_id", "category_id", "score"}`` per class; ids of classes count from 1.

        Args:
            image_id: id of the image in the data set. None for the file name without suffix, as a number if
                it is one; an image in memory requires an id.

        Raises:
            UserError: the image is in memory and has no id.
        """
        image = self._image_id(image_id)
        pairs = zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        return [{"image_id": image, "category_id": label + 1, "score": score} for label, score in pairs]

    def to_supervision(self) -> Any:
        """Return a ``supervision.Classifications``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        supervision = optional_module("supervision", "supervision", "results for supervision")
        return supervision.Classifications(class_id=self.labels.numpy(), confidence=self.scores.numpy())
