"""A detector without a network: one box per image, its score from the image's mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sppnet.data import ImageSource, read_detection, read_pixels
from sppnet.detect import DetectionResult
from sppnet.estimators import Estimator, SavedState
from sppnet.evaluate import detection_metrics
from sppnet.structures import Boxes, Detections, ImageSize


@dataclass(init=False)
class StubDetector(Estimator[DetectionResult]):
    kind: ClassVar[str] = "stub"
    supports_boxes: ClassVar[bool] = True

    def __init__(self, names: tuple[str, ...] = ("cat", "dog"), category_ids: tuple[int | str, ...] = (3, 9)):
        self.names_ = names
        self.category_ids_ = category_ids
        self.summary_ = {}
        self.fitted_on_ = None
        self.seen: list[str] = []
        self.before: Callable[[], object] = tuple  # called before each image

    def _predict_one(self, source: ImageSource, threshold: float | None) -> DetectionResult:
        self.before()
        self.seen.append(str(source))
        pixels = read_pixels(source)
        size = ImageSize(*pixels.shape[:2])
        box = Boxes(torch.tensor([[1.25, 1.5, size.width - 1.0, size.height - 1.0]]), size)
        score = torch.tensor([(float(pixels.mean()) + 1) / 257])
        found = Detections(box, score, torch.tensor([int(pixels.mean()) % len(self.names_)]), self.names_)
        return DetectionResult(found[found.scores >= (threshold or 0)], source, self.category_ids_)

    def fit(self, data: Any, split: str | None = None, **_: Any) -> StubDetector:
        return self

    def to_measure(self, data: Any, split: str | None = None, **_: Any) -> tuple[Any, dict[str, object]]:
        return read_detection(data, split), {}

    def evaluate(self, data: Any, split: str | None = None, **_: object) -> dict[str, Any]:
        items = read_detection(data, split).items
        found = [self._predict_one(item.path, None).detections for item in items]
        return detection_metrics(found, [item.truth for item in items])

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        return {}, {"category_ids": list(self.category_ids_)}

    def _restore(self, state: SavedState) -> None:
        self.category_ids_ = state.category_ids()


def stub_run(folder: Path, content: str = "{}") -> Path:
    """A folder that looks like a run from outside."""
    folder.mkdir(exist_ok=True)
    for name in ("config.toml", "model.json", "model.safetensors"):
        (folder / name).write_text(content)
    return folder
