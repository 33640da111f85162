from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.classify import ClassificationResult
from sppnet.data import ImageSource, read_pixels
from sppnet.detect import DetectionResult
from sppnet.errors import UserError
from sppnet.estimators import Estimator, FailedPrediction, PredictionsError, SavedState
from sppnet.structures import Boxes, Detections, ImageSize


@dataclass(frozen=True)
class Mean:
    """A result: the mean of an image."""

    scores: torch.Tensor
    source: ImageSource
    error: None = None

    @property
    def value(self) -> float:
        return float(self.scores)


@dataclass(init=False)
class Averager(Estimator[Mean]):
    kind: ClassVar[str] = "averager"

    def __init__(self) -> None:
        self.names_ = ("mean",)

    def _predict_one(self, source: ImageSource, threshold: float | None) -> Mean:
        if isinstance(source, str) and source == "huge.png":
            raise MemoryError
        return Mean(torch.tensor(float(read_pixels(source).mean())), source)

    def evaluate(self, data: Any, split: str | None = None, **_: object) -> dict[str, Any]:
        return {"mean": sum(self._predict_one(one, None).value for one in data)}

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        return {}, {}

    def _restore(self, state: SavedState) -> None:
        self.names_ = state.names


def grey(value: int) -> np.ndarray:
    return np.full((3, 4, 3), value, np.uint8)


def test_one_bad_source_of_a_list_leaves_the_other_results() -> None:
    with pytest.raises(PredictionsError) as caught:
        Averager().predict([grey(10), "missing.jpg", grey(20), b"", grey(30)])
    results = caught.value.results
    assert [getattr(result, "value", None) for result in results] == [10, None, 20, None, 30]
    assert [result.error is None for result in results] == [True, False, True, False, True]
    said = str(caught.value)
    assert "missing.jpg: expected an image, got no such file" in said
    assert "an empty file" in said
    assert "\n" not in said


@pytest.mark.parametrize("make", [list, tuple, iter, lambda items: (item for item in items)])
def test_lists_and_iterators_are_several_sources(make) -> None:
    assert [found.value for found in Averager().predict(make([grey(1), grey(2)]))] == [1, 2]
    assert Averager().predict(make([])) == []


def test_a_file_object_is_one_source_and_is_read_once() -> None:
    buffer = io.BytesIO()
    Image.fromarray(grey(7)).save(buffer, "PNG")
    buffer.seek(0)
    found = Averager().predict(buffer)
    assert found.value == 7
    # The result can draw it, although the file has been read.
    assert read_pixels(found.source).mean() == 7


def test_predict_iter_is_lazy_and_ordered_and_yields_failures() -> None:
    drawn: list[int] = []

    def numbers():
        for value in (1, 2, 3):
            drawn.append(value)
            yield grey(value) if value != 2 else "missing.jpg"

    found = Averager().predict_iter(numbers())
    assert next(found).value == 1
    assert drawn == [1]
    failed = next(found)
    assert isinstance(failed, FailedPrediction)
    assert failed.source == "missing.jpg"
    assert "no such file" in str(failed.error)
    assert [one.value for one in found] == [3]


@pytest.mark.parametrize("wrong", ["a.jpg", b"abc", 7])
def test_predict_iter_refuses_a_single_image(wrong: object) -> None:
    with pytest.raises(UserError, match="Use predict for one image"):
        Averager().predict_iter(wrong)


def test_an_image_that_exceeds_memory_is_one_failed_source() -> None:
    first, second = Averager().predict_iter(["huge.png", grey(5)])
    assert isinstance(first, FailedPrediction)
    assert "memory" in str(first.error)
    assert second.value == 5


def result(source: ImageSource) -> DetectionResult:
    box = Boxes(torch.tensor([[1.0, 2, 11, 22]]), ImageSize(30, 40))
    return DetectionResult(
        Detections(box, torch.tensor([0.875]), torch.tensor([1]), ("cat", "dog")), source, (3, 90)
    )


def test_a_result_is_never_saved_over_its_source_image(tmp_path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "hard.png").hardlink_to(path)
    before = path.read_bytes()
    classes = ClassificationResult.top(torch.tensor([0.2, 0.8]), ("cat", "dog"), path, None)
    for found in (result(path), classes, result(str(path))):
        for target in (path, tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "x" / ".." / "a.png"):
            (tmp_path / "x").mkdir(exist_ok=True)
            with pytest.raises(UserError, match="the same file"):
                found.save(target)
        assert found.save(tmp_path / "b.png").exists()
        assert found.save(tmp_path / "new" / "b.json").exists()
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="an ending such as"):
        result(path).save(tmp_path / "b.txt")


def test_coco_rows_of_a_result() -> None:
    row = {"category_id": 90, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.875}
    assert result("val/000012.jpg").to_coco() == [{"image_id": 12, **row}]
    assert result("val/a.jpg").to_coco() == [{"image_id": "a", **row}]
    assert result(grey(1)).to_coco(image_id="t-7") == [{"image_id": "t-7", **row}]
    with pytest.raises(UserError, match="image_id"):
        result(grey(1)).to_coco()


def test_large_images_are_drawn_small_with_their_boxes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sppnet.data.images.LARGE", 1000)
    monkeypatch.setattr("sppnet.estimators.results._DRAWN_SIDE", 200)
    image = np.full((800, 1200, 3), 128, np.uint8)
    size = ImageSize(800, 1200)
    box = Boxes(torch.tensor([[400.0, 400, 800, 600]]), size)
    found = Detections(box, torch.tensor([0.5]), torch.tensor([0]), ("cat",))
    drawn = DetectionResult(found, image).plot()
    assert drawn.size == (600, 400)
    changed = (np.asarray(drawn) != 128).any(2)
    # The box's own edges; its name stands above it.
    assert changed[250, [200, 399]].all()
    assert not changed[250, [190, 300, 410]].any()
    assert changed[299, 300]
    assert not changed[310:].any()
