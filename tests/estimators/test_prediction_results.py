from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sppnet.classify import ClassificationResult
from sppnet.detect import DetectionResult
from sppnet.errors import MissingExtraError, UserError
from sppnet.estimators import PredictionResult, results
from sppnet.structures import Boxes, Detections, ImageSize

SIZE = ImageSize(20, 30)
NAMES = ("cat", "dog", "owl")
IMAGE = np.zeros((20, 30, 3), np.uint8)


def detected(
    *scores: float, labels: tuple[int, ...] | None = None, size: ImageSize = SIZE
) -> DetectionResult:
    count = len(scores)
    boxes = torch.tensor([[i, i, i + 5.0, i + 4.0] for i in range(count)]).reshape(-1, 4)
    classes = torch.tensor(labels if labels is not None else [i % 3 for i in range(count)], dtype=torch.int64)
    found = Detections(Boxes(boxes, size), torch.tensor(scores), classes, NAMES)
    return DetectionResult(found, IMAGE, (7, 8, 9))


def classified(*scores: float) -> ClassificationResult:
    return ClassificationResult(torch.arange(len(scores)), torch.tensor(scores), NAMES, IMAGE)


@pytest.fixture(params=[detected, classified])
def result(request: pytest.FixtureRequest) -> PredictionResult:
    return request.param(0.875, 0.5, 0.25)


def test_indices_slices_and_masks_select_in_every_column(result: PredictionResult) -> None:
    for index, wanted in (
        (0, [0.875]),
        (-1, [0.25]),
        (np.int64(1), [0.5]),
        (slice(1, None), [0.5, 0.25]),
        (slice(None, None, -1), [0.25, 0.5, 0.875]),
        ([2, 0], [0.25, 0.875]),
        (torch.tensor([1]), [0.5]),
        ([False, True, False], [0.5]),
        (result.scores > 0.3, [0.875, 0.5]),
        ([], []),
    ):
        found = result[index]
        assert found.scores.tolist() == wanted, index
        assert found.labels.tolist() == [[0.875, 0.5, 0.25].index(score) for score in wanted]
        assert len(found) == len(wanted)
    for index in (3, -4):
        with pytest.raises(IndexError):
            result[index]


def test_iteration_gives_results_of_length_one(result: PredictionResult) -> None:
    assert [one.scores.tolist() for one in result] == [[0.875], [0.5], [0.25]]
    assert [one == result[i] for i, one in enumerate(result)] == [True] * 3


def test_equality_compares_all_predictions_but_not_the_source(result: PredictionResult) -> None:
    assert result == result[:]
    assert result != result[:2]
    assert result != result[[1, 0, 2]]
    assert result != "result"
    assert detected(0.5) != classified(0.5)
    assert detected(0.5) != detected(0.5, labels=(1,))
    assert detected(0.5) != detected(0.5, size=ImageSize(20, 31))
    with pytest.raises(TypeError):
        hash(result)


@given(st.lists(st.sampled_from([0.125, 0.25, 0.5, 0.75]), max_size=8), st.integers(0, 8))
def test_the_parts_of_a_result_merge_to_the_result(scores: list[float], cut: int) -> None:
    whole = detected(*sorted(scores, reverse=True))
    assert whole[:cut] + whole[cut:] == whole
    merged = whole[cut:].merge(whole[:cut])
    assert merged.scores.tolist() == whole.scores.tolist()
    assert sorted(merged.boxes.tolist()) == sorted(whole.boxes.tolist())


def test_of_a_class_that_two_results_have_the_highest_score_is_kept() -> None:
    one, other = (
        classified(0.5, 0.25),
        ClassificationResult(torch.tensor([1, 2]), torch.tensor([0.75, 0.125]), NAMES, IMAGE),
    )
    merged = one + other
    assert merged.labels.tolist() == [1, 0, 2]
    assert merged.scores.tolist() == [0.75, 0.5, 0.125]


def test_results_of_other_images_or_classes_do_not_merge() -> None:
    with pytest.raises(UserError, match="one image"):
        detected(0.5).merge(detected(0.5, size=ImageSize(20, 31)))
    with pytest.raises(UserError, match="one image"):
        classified(0.5) + ClassificationResult(torch.tensor([0]), torch.tensor([0.5]), ("cat",), IMAGE)


def test_the_notebook_shows_the_drawn_image(result: PredictionResult) -> None:
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.format == "PNG"
    assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(result.plot().convert("RGB")))


def test_records_have_the_exact_numbers() -> None:
    third = float(np.float32(1 / 3))
    record = detected(third).to_record()
    assert record["exact"] == {"boxes": [[0.0, 0.0, 5.0, 4.0]], "scores": [third]}
    assert results.record_entries(record) == detected(third).to_dict()["detections"]
    assert results.record_entries(classified(third).to_record()) == classified(third).to_dict()["classes"]


def test_coco_results() -> None:
    assert detected(0.5, labels=(2,)).to_coco(4) == [
        {"image_id": 4, "category_id": 9, "bbox": [0.0, 0.0, 5.0, 4.0], "score": 0.5}
    ]
    assert classified(0.5).to_coco("a") == [{"image_id": "a", "category_id": 1, "score": 0.5}]
    with pytest.raises(UserError, match="image_id"):
        classified(0.5).to_coco()


def test_pandas_has_a_row_per_prediction(result: PredictionResult) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert frame["name"].tolist() == list(NAMES)
    assert frame["scores"].tolist() == result.scores.tolist()
    assert frame["labels"].tolist() == [0, 1, 2]
    if isinstance(result, DetectionResult):
        assert frame[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == result.boxes.tolist()


def test_supervision_objects_have_the_class_names(result: PredictionResult) -> None:
    pytest.importorskip("supervision")
    found = result.to_supervision()
    assert found.class_id.tolist() == [0, 1, 2]
    assert found.confidence.tolist() == result.scores.tolist()
    if isinstance(result, DetectionResult):
        assert found.data["class_name"].tolist() == list(NAMES)
        assert found.xyxy.tolist() == result.boxes.tolist()
        assert len(result[:0].to_supervision()) == 0


@pytest.mark.parametrize("name", ["pandas", "supervision"])
def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, result: PredictionResult, name: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    convert: Any = getattr(result, f"to_{name}")
    with pytest.raises(MissingExtraError, match=rf"sppnet\[{name}\]"):
        convert()
