from pathlib import Path

import numpy as np
import pytest
from export_scenes import COLOURS, NAMES, scene
from PIL import Image

from sppnet.classify import Classifier, ClassifierOptions
from sppnet.data import write_voc
from sppnet.detect import Detector, DetectorOptions
from sppnet.runtime import Runtime

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_voc(root, [(f"a{i:02}", *scene(i)) for i in range(12)], "train")
    write_voc(root, [(f"b{i:02}", *scene(100 + i)) for i in range(2)], "val")
    return root


@pytest.fixture(scope="session")
def detector(scenes) -> Detector:
    options = DetectorOptions(short_side=128, levels=(3, 1), windows=600, mining_rounds=1, rows=4000)
    return Detector("builtin", device="cpu", options=options).fit(scenes, quiet=True)


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A class folder for each colour."""
    root = tmp_path_factory.mktemp("colours")
    draw = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for name, colour in zip(NAMES, COLOURS, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise = draw.integers(-30, 25, (40 + 5 * i, 60 - 3 * i, 3))
                pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def classifier(colours) -> Classifier:
    """Two scales and flips, so that the network is in the graph four times."""
    options = ClassifierOptions(levels=(3, 2, 1), scales=(0, 96), flip=True, long_side=400)
    return Classifier("builtin", device="cpu", options=options).fit(colours, quiet=True)


@pytest.fixture(scope="session")
def models(tmp_path_factory, detector, classifier) -> dict[str, Runtime]:
    """One exported file of each kind."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "detector": Runtime(detector.export(folder / "detector.onnx")),
        "classifier": Runtime(classifier.export(folder / "classifier.onnx")),
        "features": Runtime(detector.export(folder / "features.onnx", part="features")),
        "box-features": Runtime(detector.export(folder / "boxes.onnx", part="box-features")),
    }
