"""Written COCO results, evaluated by pycocotools: ids of categories and images, and AP."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.data import read_detection, write_predictions
from sppnet.evaluate import detection_metrics
from sppnet.structures import Boxes, Detections

coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")

NAMES = ("cat", "dog", "emu")


def make_data(root: Path, category_ids: tuple[int, ...], image_ids: tuple[int | str, ...], seed: int) -> Path:
    draw = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    images, annotations = [], []
    for number, image_id in enumerate(image_ids):
        name = f"{900 - number}.png"  # a name with another number than the id
        Image.new("RGB", (64, 48)).save(root / name)
        images.append({"id": image_id, "file_name": name, "width": 64, "height": 48})
        for _ in range(3):
            x, y, width, height = (
                draw.integers(low, high) for low, high in ((0, 40), (0, 24), (6, 24), (6, 24))
            )
            box = [int(v) for v in (x, y, width, height)]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image_id, "bbox": box, "iscrowd": 0,
                    "category_id": int(draw.choice(category_ids)), "area": box[2] * box[3],
                }
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, NAMES, strict=True)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("category_ids", [(0, 1, 2), (3, 7, 9), (1, 2, 3), (90, 5, 40)])
@pytest.mark.parametrize("image_ids", [(0, 1, 2, 3), (101, 205, 7, 10**12), ("a", "t-7", "007", "x y")])
def test_ap_by_pycocotools_equals_detection_metrics(
    tmp_path: Path, category_ids: tuple[int, ...], image_ids: tuple[int | str, ...]
) -> None:
    file = make_data(tmp_path / "data", category_ids, image_ids, seed=len(str(image_ids)))
    dataset = read_detection(tmp_path / "data", "val")
    draw = torch.Generator().manual_seed(0)
    found: list[Detections] = []
    for item in dataset.items:
        truth = item.truth
        moved = truth.boxes.xyxy + torch.randint(0, 4, truth.boxes.xyxy.shape, generator=draw)
        moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = torch.rand(len(truth), generator=draw).sort(descending=True).values
        found.append(Detections(Boxes(moved, truth.boxes.size), scores, truth.labels, dataset.names))
    results = tmp_path / "results.json"
    ids = {image["file_name"]: image["id"] for image in json.loads(file.read_text())["images"]}
    named = [(item.path, one) for item, one in zip(dataset.items, found, strict=True)]
    image_id_list = [ids[item.path.name] for item in dataset.items]
    write_predictions(results, named, "coco", dataset.category_ids, image_id_list)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(file))
        peer = cocoeval.COCOeval(truth, truth.loadRes(str(results)), "bbox")
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    metrics = detection_metrics(found, [item.truth for item in dataset.items])
    assert peer.stats[0] > 0
    assert metrics["AP"] == pytest.approx(peer.stats[0], abs=1e-9)
    assert metrics["AP50"] == pytest.approx(peer.stats[1], abs=1e-9)
