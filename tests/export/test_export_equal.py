"""One exported file per kind against the estimators, over sizes that it has never seen."""

import numpy as np
import pytest
import torch
from export_scenes import scene
from PIL import Image

from sppnet.data import read_image
from sppnet.features import extract, image_rows, pool_rows
from sppnet.structures import Boxes, ImageSize

# The extremes, and sizes at which resizing is limited by the long side or does nothing.
FEW = [(32, 32), (400, 1500), (32, 1500), (400, 33), (128, 128)]


def _sizes() -> list:
    draw = np.random.default_rng(0)
    many = [(int(draw.integers(32, 401)), int(draw.integers(32, 1501))) for _ in range(200)]
    return [*FEW, *(pytest.param(size, marks=pytest.mark.exhaustive) for size in many)]


SIZES = pytest.mark.parametrize("size", _sizes(), ids=lambda s: f"{s[0]}x{s[1]}")


def _image(size: tuple[int, int]) -> np.ndarray:
    pixels, _ = scene(size[0] * 2000 + size[1])
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0])))


@SIZES
def test_detections(detector, models, size):
    pixels = _image(size)
    ours, theirs = (
        detector.predict(pixels, threshold=0.01),
        models["detector"].predict(pixels, threshold=0.01),
    )
    assert len(ours) == len(theirs)
    np.testing.assert_array_equal(theirs.labels, ours.labels.numpy())
    np.testing.assert_allclose(theirs.boxes, ours.boxes.numpy(), atol=0.05, rtol=0)
    np.testing.assert_allclose(theirs.scores, ours.scores.numpy(), atol=1e-3, rtol=0)


@SIZES
def test_classes(classifier, models, size):
    pixels = _image(size)
    ours, theirs = classifier.predict(pixels), models["classifier"].predict(pixels)
    np.testing.assert_array_equal(theirs.labels, ours.labels.numpy())
    np.testing.assert_allclose(theirs.scores, ours.scores.numpy(), atol=1e-3, rtol=0)


@SIZES
def test_features(detector, models, size):
    pixels = _image(size)
    options, levels = detector.options.map, detector.options.pool.levels
    maps = extract(detector.network_, read_image(pixels), options.sides, long_side=options.long_side)
    row = image_rows(maps, levels).numpy()
    # Relative to the largest feature: in float32 torch's own maps are off by up to 2e-4 from float64's.
    np.testing.assert_allclose(models["features"].features(pixels), row, atol=1e-4 * row.max(), rtol=0)
    draw = np.random.default_rng(sum(size))
    corners = np.sort(draw.uniform(-0.1, 1.1, (30, 2, 2)), 1)
    boxes = (corners * (size[1], size[0])).reshape(30, 4).astype(np.float32)
    rows = pool_rows(maps, Boxes(torch.from_numpy(boxes), ImageSize(*size)), levels).numpy()
    found = models["box-features"].features(pixels, boxes)
    np.testing.assert_allclose(found, rows, atol=1e-4 * rows.max(), rtol=0)


def test_no_boxes_give_no_features(detector, models):
    length = sum(layer.channels for layer in detector.backbone_.layers) * 10
    assert models["box-features"].features(_image((40, 50)), []).shape == (0, length)


def test_an_image_without_candidates(detector, scenes, tmp_path):
    from dataclasses import replace

    from sppnet.detect import Detector
    from sppnet.learn import LinearModel
    from sppnet.runtime import Runtime

    shy = Detector("builtin", device="cpu", options=detector.options)
    vars(shy).update(vars(detector))
    svm = detector.heads_.svm
    shy.heads_ = replace(detector.heads_, svm=LinearModel(svm.weight, svm.bias - 1000))
    assert len(shy.predict(_image((64, 64)), threshold=0.0)) == 0
    found = Runtime(shy.export(tmp_path / "shy.onnx")).predict(_image((64, 64)), threshold=0.0)
    assert found.to_dict() == {"height": 64, "width": 64, "detections": []}


def test_the_limit_of_candidates_per_image(detector, tmp_path):
    from sppnet.detect import Detector
    from sppnet.runtime import Runtime

    few = Detector("builtin", device="cpu", options=detector.options.replace(candidates_per_image=7))
    vars(few).update({name: value for name, value in vars(detector).items() if name.endswith("_")})
    model = Runtime(few.export(tmp_path / "few.onnx"))
    pixels = _image((200, 300))
    ours, theirs = few.predict(pixels, threshold=0.0), model.predict(pixels, threshold=0.0)
    assert len(ours) == len(theirs) <= 7 < len(detector.predict(pixels, threshold=0.0))
    np.testing.assert_allclose(theirs.boxes, ours.boxes.numpy(), atol=0.05, rtol=0)
