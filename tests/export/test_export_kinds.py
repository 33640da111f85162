"""Files of every kind of estimator, preset and backbone against torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from equality import EXTREMES, Differences, compare_features, compare_predictions, random_sizes
from export_scenes import scene
from PIL import Image

from sppnet.classify import Classifier, ClassifierOptions, NetworkClassifier, NetworkOptions, TrainOptions
from sppnet.classify.views import ViewOptions
from sppnet.detect import Detector, DetectorOptions
from sppnet.errors import UserError
from sppnet.export import evaluate_export, export_estimator, export_program
from sppnet.features import extract, pool_rows, resize
from sppnet.runtime import Runtime
from sppnet.structures import Boxes, ImageSize

SMALL = {"short_side": 128, "levels": (2, 1), "windows": 300, "mining_rounds": 1, "rows": 2000}
PAPER = {
    "scales": (96,),
    "levels": (2, 1),
    "source": "dense",
    "windows": 200,
    "score_above": -10.0,
    "lengths": (20,),
    "rates": (1e-2,),
    "width": 16,
}
DETECTORS = {
    "lite0": ("lite0", DetectorOptions(**SMALL)),
    "torchvision": ("random:torchvision:squeezenet1_0", DetectorOptions(**SMALL)),
    "timm": ("random:timm:mobilenetv3_small_050", DetectorOptions(**SMALL)),
    "several scales": ("builtin", DetectorOptions(**SMALL | {"scales": (96, 160)})),
    "nothing refined": ("builtin", DetectorOptions(**SMALL, regressions=0, vote=1.0, inside=1.0)),
    "without IoU head": ("builtin", DetectorOptions(**SMALL, iou_head=0, rescored=False)),
    "paper fc7": ("zf5/8", DetectorOptions.paper(**PAPER)),
    "paper fc6": ("zf5/8", DetectorOptions.paper(**PAPER, features="fc6", rescored=True)),
    "paper pool": ("zf5/8", DetectorOptions.paper(**PAPER, features="pool", regressions=2)),
    "release": ("zf5/8", DetectorOptions.release(**PAPER | {"scales": (96, 128)}, features="pool")),
}


def _image(size: tuple[int, int]) -> np.ndarray:
    pixels, _ = scene(size[0] * 2000 + size[1])
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0])))


@pytest.fixture(params=[4, pytest.param(40, marks=pytest.mark.exhaustive)], ids=["few", "many"])
def sizes(request):
    return [*EXTREMES, *random_sizes(request.param)]


def _kinds(names, few):
    """All kinds; those beside a few are fitted and exported by the exhaustive tests alone."""
    return [
        pytest.param(name, id=name.replace(" ", "-"), marks=[] if name in few else pytest.mark.exhaustive)
        for name in names
    ]


@pytest.fixture(scope="module", params=_kinds(DETECTORS, ("several scales", "paper fc7", "release")))
def fitted(request, scenes):
    backbone, options = DETECTORS[request.param]
    return Detector(backbone, device="cpu", options=options).fit(scenes, quiet=True)


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    return Runtime(fitted.export(tmp_path_factory.mktemp("kinds") / "detector.onnx"))


def test_detectors_of_every_backbone_and_preset(fitted, exported, sizes):
    so_far = Differences()
    for size in sizes:
        compare_predictions(fitted, exported, _image(size), so_far)
    assert so_far.found
    # Scores of random networks are nearly equal: rounding may decide which of two near-duplicates remains.
    assert so_far.other <= len(sizes) // 40, so_far
    assert so_far.boxes <= 0.05, so_far
    assert so_far.scores <= 1e-3, so_far


CLASSIFIERS = {
    "lite0": "lite0",
    "torchvision": "random:torchvision:resnet18",
    "timm": "random:timm:convnext_atto",
}


@pytest.mark.exhaustive  # the networks are large
@pytest.mark.parametrize("backbone", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifiers_of_every_backbone(backbone, colours, tmp_path, sizes):
    options = ClassifierOptions(levels=(2, 1), scales=(96,), long_side=400)
    ours = Classifier(backbone, device="cpu", options=options).fit(colours, quiet=True)
    model = Runtime(ours.export(tmp_path / "model.onnx"))
    features = Runtime(ours.export(tmp_path / "features.onnx", part="features"))
    so_far = Differences()
    for size in sizes:
        compare_predictions(ours, model, _image(size), so_far)
        compare_features(ours, features, _image(size), so_far)
    assert so_far.other == 0, so_far
    assert so_far.scores <= 1e-3, so_far
    assert so_far.features <= 1e-4, so_far


def _network(pyramid: tuple[int, ...], views: ViewOptions | None, colours) -> NetworkClassifier:
    train = TrainOptions(short_side=48, crop=40, epochs=2, batch=4, drops=(), rate=0.01)
    net = NetworkOptions(pyramid=pyramid, hidden=(16,), start="he")
    ours = NetworkClassifier("zf5-small/16", device="cpu", network=net, train=train, views=views)
    return ours.fit(colours, quiet=True)


VIEWS = {
    "whole image": ((3, 1), None),
    "whole image and flip": ((3, 1), ViewOptions(positions="none", full=64)),
    "five crops": ((2, 1), ViewOptions((48,), 40, "five")),
    "nine views on maps": ((2, 1), ViewOptions((40, 56), 40, "nine", full=48, how="maps")),
    "one size": ((), None),
    "one size, nine crops": ((), ViewOptions((40, 48), 40, "nine", flip=False)),
}


@pytest.fixture(scope="module", params=_kinds(VIEWS, ("nine views on maps", "one size, nine crops")))
def network(request, colours):
    return _network(*VIEWS[request.param], colours)


def test_networks_that_were_trained_end_to_end(network, tmp_path, sizes):
    model = Runtime(network.export(tmp_path / "model.onnx"))
    assert model.kind == "classifier"
    so_far = Differences()
    for size in [*sizes, (1, 400), (64, 64)]:
        compare_predictions(network, model, _image(size), so_far)
    assert so_far.found
    assert so_far.other == 0, so_far
    assert so_far.scores <= 1e-3, so_far


def test_features_of_a_trained_network(colours, tmp_path):
    ours = _network((2, 1), None, colours)
    features = Runtime(ours.export(tmp_path / "features.onnx", part="features"))
    so_far = Differences()
    for size in ((32, 32), (90, 200), (400, 300)):
        compare_features(ours, features, _image(size), so_far)
    assert so_far.features <= 1e-4, so_far
    whole = Runtime(ours.export(tmp_path / "model.onnx"))
    image = _image((90, 200))
    np.testing.assert_array_equal(whole.features(image), features.features(image)[0])
    one_size = _network((), None, colours)
    with pytest.raises(UserError, match="pyramid pooling"):
        one_size.export(tmp_path / "refused.onnx", part="features")


@pytest.mark.exhaustive  # torch.export takes a minute
def test_a_torch_program_of_a_trained_network(colours, tmp_path):
    ours = _network((3, 1), ViewOptions(positions="none", full=64, flip=True), colours)
    path = export_program(ours, tmp_path / "model.pt2")
    program = torch.export.load(path).module(check_guards=False)
    for size in ((64, 90), (300, 200), (40, 900)):
        pixels = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
        scores, _ = program(torch.from_numpy(pixels))
        expected = ours.predict(pixels)
        torch.testing.assert_close(scores[expected.labels], expected.scores, atol=1e-5, rtol=0)


def test_torch_programs_of_crops_are_refused(colours, tmp_path):
    ours = _network((2, 1), ViewOptions((48,), 40, "five"), colours)
    with pytest.raises(UserError, match="full image only"):
        export_program(ours, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_antialiased_resizing_is_that_of_torch():
    from sppnet.export.geometry import Size, image_input, resize_antialiased
    from sppnet.export.graph import Builder

    onnxruntime = pytest.importorskip("onnxruntime")
    for before, after in (
        ((37, 211), (64, 365)),
        ((300, 90), (64, 19)),
        ((64, 65), (64, 65)),
        ((9, 7), (70, 3)),
    ):
        builder = Builder()
        image, size = image_input(builder)
        target = Size(*(builder.constant(side, np.int64) for side in after))
        builder.output("out", resize_antialiased(image, size, target), [3, None, None])
        session = onnxruntime.InferenceSession(builder.model({}).SerializeToString())
        pixels = np.random.default_rng(0).integers(0, 256, (*before, 3)).astype(np.uint8)
        (found,) = session.run(None, {"image": pixels})
        ours = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        wanted = resize(ours, ImageSize(*after), antialias=True)[0].numpy()
        np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=0)


def test_features_of_boxes_at_the_scale_that_suits_each(classifier, tmp_path):
    model = Runtime(classifier.export(tmp_path / "boxes.onnx", part="box-features"))
    pixels = _image((150, 200))
    draw = np.random.default_rng(1)
    boxes = np.sort(draw.uniform(0, 150, (40, 2, 2)), 1).reshape(40, 4).astype(np.float32)
    from sppnet.data import read_image

    image, options = read_image(pixels), classifier.options
    maps = extract(classifier.network_, image, (96,), long_side=400).maps
    maps = (*extract(classifier.network_, image, None, long_side=400).maps, *maps)
    from sppnet.structures import FeatureMaps

    rows = pool_rows(FeatureMaps(maps), Boxes(torch.from_numpy(boxes), ImageSize(150, 200)), options.levels)
    found = model.features(pixels, boxes)
    np.testing.assert_allclose(found, rows.numpy(), atol=1e-4 * float(rows.max()), rtol=0)


@pytest.fixture(scope="module")
def on_proposals(scenes, tmp_path_factory):
    """A detector that was fitted on a file of proposals."""
    from sppnet.data import read_detection
    from sppnet.proposals import dense_windows

    shapes = torch.tensor([[0.25, 0.25], [0.4, 0.4]])
    table = {}
    for split in ("train", "val"):
        for item in read_detection(scenes, split).items:
            table[item.path.name] = dense_windows(item.truth.boxes.size, shapes, most=200).xyxy.tolist()
    file = tmp_path_factory.mktemp("proposals") / "boxes.json"
    file.write_text(json.dumps(table))
    options = DetectorOptions(**SMALL, proposals=file)
    return Detector("builtin", device="cpu", options=options).fit(scenes, quiet=True)


def test_proposals_of_a_file_are_an_input(on_proposals, scenes, tmp_path):
    path = on_proposals.export(tmp_path / "model.onnx")
    model = Runtime(path)
    image = sorted((scenes / "JPEGImages").iterdir())[-1]
    with pytest.raises(UserError, match="proposals from a proposals file; pass such"):
        model.predict(image)
    boxes = on_proposals.proposals(image).xyxy.numpy()
    ours, theirs = on_proposals.predict(image), model.predict(image, boxes=boxes)
    assert len(ours)
    np.testing.assert_array_equal(theirs.labels, ours.labels.numpy())
    np.testing.assert_allclose(theirs.boxes, ours.boxes.numpy(), atol=0.05, rtol=0)
    measured = evaluate_export(on_proposals, path, scenes, "val")
    assert measured["AP50"][0] == pytest.approx(measured["AP50"][1], abs=1e-3)


def test_a_graph_without_a_form_is_refused_before_anything_is_written(detector, scenes, tmp_path):
    from dataclasses import replace

    for change, match in (
        ({"tile": 64}, "run the exported file on each tile"),
        ({"pipeline": "rcnn"}, "once per"),
    ):
        other = replace(detector, options=detector.options.replace(**change))
        vars(other).update({k: v for k, v in vars(detector).items() if k.endswith("_")})
        with pytest.raises(UserError, match=match):
            export_estimator(other, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_of_zero_gives_the_ranked_list(detector, models):
    image = _image((90, 130))
    ours, theirs = (one.predict(image, threshold=0.0) for one in (detector, models["detector"]))
    assert len(theirs) > len(models["detector"].predict(image, threshold=1e-9))
    assert len(ours) == len(theirs)
