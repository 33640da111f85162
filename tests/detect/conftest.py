import json
from pathlib import Path

import pytest
from shape_images import OPTIONS, image

from sppnet.data import read_detection, write_voc
from sppnet.detect import Detector


@pytest.fixture(scope="session")
def shapes_set(tmp_path_factory) -> Path:
    """A VOC data set: 16 images to learn from, 8 to measure on."""
    root = tmp_path_factory.mktemp("shapes")
    write_voc(root, [(f"a{i:02}", *image(i)) for i in range(16)], "train")
    write_voc(root, [(f"b{i:02}", *image(100 + i)) for i in range(8)], "val")
    return root


@pytest.fixture(scope="session")
def proposals_file(shapes_set, tmp_path_factory) -> Path:
    """Boxes for every image of the set: a coarse lattice of squares."""
    table = {}
    for split in ("train", "val"):
        for item in read_detection(shapes_set, split).items:
            size = item.truth.boxes.size
            table[item.path.name] = [
                [x, y, x + 34, y + 34]
                for y in range(0, size.height - 34, 8)
                for x in range(0, size.width - 34, 8)
            ]
    path = tmp_path_factory.mktemp("proposals") / "boxes.json"
    path.write_text(json.dumps(table))
    return path


@pytest.fixture(scope="session")
def detector(shapes_set) -> Detector:
    return Detector("builtin", device="cpu", options=OPTIONS).fit(shapes_set, quiet=True)
