"""The torch-free side: images, results, errors, and what it imports."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from export_scenes import NAMES, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.classify.result import ClassificationResult
from sppnet.data import read_pixels
from sppnet.detect import DetectionResult
from sppnet.errors import UserError
from sppnet.runtime import Runtime, results
from sppnet.runtime.images import read_pixels as read_without_torch
from sppnet.structures import Boxes, Detections, ImageSize

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]


def test_importing_it_imports_no_torch(program):
    said = program("imported", "sppnet.runtime", "torch")
    assert (said.stdout, said.stderr) == ("[]\n", "")


def _image(mode: str) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 255, (7, 5, 3)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[:, :, 0].astype(np.uint16) * 250)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_as_the_package_reads_it(mode):
    image = _image(mode)
    np.testing.assert_array_equal(read_without_torch(image), read_pixels(image))


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_every_depth_of_grey_is_read_as_the_package_reads_it(mode, bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (9, 11))
    image = Image.fromarray(values.astype({"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]))
    assert image.mode == mode
    np.testing.assert_array_equal(read_without_torch(image), read_pixels(image))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_every_orientation_is_turned_upright(tmp_path, turn, ending):
    path = tmp_path / f"image.{ending}"
    exif = Image.Exif()
    exif[0x0112] = turn
    _image("RGB").save(path, exif=exif)
    np.testing.assert_array_equal(read_without_torch(path), read_pixels(path))
    np.testing.assert_array_equal(read_without_torch(path.read_bytes()), read_pixels(path))


def test_a_file_is_predicted_as_the_estimator_predicts_it(detector, classifier, models, scenes, colours):
    path = scenes / "JPEGImages" / "b00.jpg"
    if not path.exists():
        path = next((scenes / "JPEGImages").glob("b00.*"))
    ours, theirs = detector.predict(path).to_dict(), models["detector"].predict(path).to_dict()
    assert len(ours["detections"]) == 2
    assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"])
    for a, b in zip(ours["detections"], theirs["detections"], strict=True):
        assert (a["label"], a["name"]) == (b["label"], b["name"])
        np.testing.assert_allclose(a["box"], b["box"], atol=0.05)
        assert abs(a["score"] - b["score"]) <= 1e-3
    path = colours / "val" / "red" / "0.png"
    assert models["classifier"].predict(path).name == classifier.predict(path).name == "red"


def test_results_of_a_list_and_an_iterable_are_those_of_each(models, tmp_path):
    images = [scene(seed)[0] for seed in (1, 2)]
    each = [models["detector"].predict(image).to_dict() for image in images]
    assert [found.to_dict() for found in models["detector"].predict(images)] == each
    assert [found.to_dict() for found in models["detector"].predict_iter(iter(images))] == each
    assert models["detector"].predict(images[0]).save(tmp_path / "found.json").stat().st_size > 0


def test_results_are_drawn_as_those_of_torch(models, tmp_path):
    pixels = scene(4)[0]
    found = models["detector"].predict(pixels, threshold=0.01)
    assert len(found) >= 2
    boxes = Boxes(torch.from_numpy(found.boxes), ImageSize(found.height, found.width))
    detections = Detections(boxes, torch.from_numpy(found.scores), torch.from_numpy(found.labels), NAMES)
    drawn = found.plot()
    assert drawn.tobytes() == DetectionResult(detections, pixels).plot().tobytes()
    path = found.save(tmp_path / "found.png")
    with Image.open(path) as written:
        assert written.tobytes() == drawn.tobytes()
    classes = models["classifier"].predict(pixels)
    ours = ClassificationResult(
        torch.from_numpy(classes.labels), torch.from_numpy(classes.scores), NAMES, pixels
    )
    assert classes.plot().tobytes() == ours.plot().tobytes()


def test_a_result_is_not_written_over_its_image(models, tmp_path):
    Image.fromarray(scene(4)[0]).save(tmp_path / "a.png")
    found = models["detector"].predict(tmp_path / "a.png")
    with pytest.raises(UserError, match="the source image"):
        found.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="ending"):
        found.save(tmp_path / "a.text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_image_of_many_pixels_is_reduced_before_it_is_drawn(monkeypatch):
    monkeypatch.setattr(results, "_LARGEST_DRAWN", 250_000)
    pixels = np.zeros((1000, 1000, 3), np.uint8)
    box = np.array([[0, 0, 1000, 500]], np.float32)
    found = results.DetectionResult(
        box, np.ones(1, np.float32), np.zeros(1, np.int64), ("a",), 1000, 1000, pixels
    )
    drawn = np.asarray(found.plot())
    assert drawn.shape == (500, 500, 3)
    assert drawn[250:].sum() < 0.05 * drawn[:250].sum() + 500 * 3 * 255
    with pytest.raises(UserError, match="its image"):
        replace(found, source=None).plot()


def test_drawing_imports_no_torch(program):
    said = program("drawn_without_torch")
    assert (said.stdout, said.stderr) == ("(400, 360) False\n", "")


def test_a_file_says_what_it_is(models):
    for kind, model in models.items():
        assert model.kind == kind
        assert model.metadata["license"].startswith("Apache-2.0")
        assert "uint8" in model.metadata["input"]
    assert models["detector"].names == models["classifier"].names == NAMES
    assert models["detector"].metadata["threshold"] == "0.5"


@settings(max_examples=20, deadline=None)
@given(threshold=st.floats(1e-6, 1))
def test_a_threshold_cuts_the_tail(models, threshold):
    image = scene(5)[0]
    every = models["detector"].predict(image, threshold=1e-6)
    some = models["detector"].predict(image, threshold=threshold)
    np.testing.assert_array_equal(some.scores, every.scores[every.scores >= threshold])


@pytest.mark.parametrize(
    ("boxes", "where"),
    [
        (None, "boxes: expected boxes"),
        ([[0, 0, float("nan"), 1]], r"boxes\[0\]"),
        ([[0, 0, 1, 1], [3, 0, 1, 1]], r"boxes\[1\]"),
        ([1, 2, 3, 4], "shape"),
    ],
)
def test_boxes_at_fault_are_refused(models, boxes, where):
    with pytest.raises(UserError, match=where):
        models["box-features"].features(scene(1)[0], boxes)


def test_what_does_not_fit_is_refused(models, tmp_path):
    image = scene(1)[0]
    with pytest.raises(UserError, match="a detector or a classifier"):
        models["features"].predict(image)
    with pytest.raises(UserError, match="a detector"):
        models["detector"].features(image)
    with pytest.raises(UserError, match="no boxes for this model"):
        models["detector"].predict(image, boxes=[[0, 0, 1, 1]])
    with pytest.raises(UserError, match="no such file"):
        models["detector"].predict(tmp_path / "missing.jpg")
    with pytest.raises(UserError, match="unknown type"):
        models["detector"].predict(io.BytesIO(b"text").getvalue())
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match="onnxruntime cannot load"):
        Runtime(tmp_path / "text.onnx")


def test_buffers_and_binary_files_are_images(models):
    stream = io.BytesIO()
    Image.fromarray(scene(3)[0]).save(stream, "PNG")
    content = stream.getvalue()
    wanted = models["detector"].predict(content).to_dict()
    for source in (bytearray(content), memoryview(content), io.BytesIO(content)):
        assert models["detector"].predict(source).to_dict() == wanted


@pytest.mark.parametrize("source", [None, 3, {}, {"a": 1}, object(), io.StringIO("text"), "x" * 5000, "a\0b"])
def test_what_is_no_image_is_refused(models, source):
    with pytest.raises(UserError, match="expected"):
        models["detector"].predict(source)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "0.5", [0.5], object()])
def test_a_threshold_is_a_number(models, threshold):
    for name in ("detector", "classifier"):
        with pytest.raises(UserError, match="threshold: expected a finite number"):
            models[name].predict(scene(1)[0], threshold=threshold)


@pytest.mark.parametrize("threads", [0, -1, 10**6, 1.5, "2"])
def test_threads_out_of_range_are_refused(threads):
    with pytest.raises(UserError, match="threads: expected a whole number"):
        Runtime("model.onnx", threads=threads)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_thin_images_are_predicted_as_by_the_estimator(detector, models, size):
    pixels = np.full((*size, 3), 128, np.uint8)
    ours, theirs = (one.predict(pixels, threshold=0.01) for one in (detector, models["detector"]))
    assert len(ours) == len(theirs)
