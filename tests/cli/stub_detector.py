"""A detector without a network: one box per image, its score from the image's mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from sppnet.data import ImageSource, read_pixels
from sppnet.detect import DetectionResult
from sppnet.predicting import FailedSource, predict_each
from sppnet.structures import Boxes, Detections, ImageSize


class StubDetector:
    def __init__(self, names: tuple[str, ...] = ("cat", "dog"), category_ids: tuple[int | str, ...] = (3, 9)):
        self.names_ = names
        self.category_ids_ = category_ids
        self.seen: list[str] = []

    def _one(self, source: ImageSource) -> DetectionResult:
        self.seen.append(str(source))
        pixels = read_pixels(source)
        size = ImageSize(*pixels.shape[:2])
        box = Boxes(torch.tensor([[1.25, 1.5, size.width - 1.0, size.height - 1.0]]), size)
        score = torch.tensor([(float(pixels.mean()) + 1) / 257])
        found = Detections(box, score, torch.tensor([int(pixels.mean()) % len(self.names_)]), self.names_)
        return DetectionResult(found, source, self.category_ids_)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[DetectionResult | FailedSource]:
        return predict_each(self._one, sources)


def stub_run(folder: Path, content: str = "{}") -> Path:
    """A folder that looks like a run from outside."""
    folder.mkdir(exist_ok=True)
    for name in ("config.toml", "model.json", "model.safetensors"):
        (folder / name).write_text(content)
    return folder
