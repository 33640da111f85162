"""Tiny data sets of every layout, as file contents by relative path, and what reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sppnet.data import (
    read_classification,
    read_detection,
    read_voc_labels,
    recognise,
    splits,
    without_empty_classes,
)
from sppnet.proposals import read_proposals
from sppnet.structures import ClassificationSet, DetectionSet

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """A data set and the reader that is tried on it.

    Attributes:
        files: its files; those that end in ``.png`` are not mutated.
        read: reads it from its folder and checks what comes back.
    """

    files: Files
    read: Callable[[Path], None]


def png(width: int = 12, height: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 200)).save(stream, "PNG")
    return stream.getvalue()


PNG = png()
XML = (
    "<?xml version='1.0' encoding='utf-8'?>\n<annotation><folder>x</folder><filename>{0}.png</filename>"
    "<size><width>12</width><height>8</height><depth>3</depth></size>\n<object><name>cat</name>"
    "<truncated>0</truncated><difficult>0</difficult>\n<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
    "<ymax>7</ymax></bndbox></object>\n<object><name>dög</name><bndbox><xmin>2.5</xmin><ymin>1</ymin>"
    "<xmax>4</xmax><ymax>5</ymax></bndbox></object></annotation>\n"
)
YAML = "path: .\ntrain: images/train\nval: [images/val, val.txt]\nnc: 2\nnames:\n  0: cat\n  1: 'no'\n"


def coco() -> bytes:
    images = [{"id": i, "file_name": f"{n}.png", "width": 12, "height": 8} for i, n in ((7, "a"), (9, "b"))]
    objects = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3.5, 4], "iscrowd": 0, "area": 14},
        {"id": 2, "image_id": 9, "category_id": 0, "bbox": [0, 0, 12, 8], "iscrowd": "1"},
    ]
    names = [{"id": 0, "name": "all"}, {"id": 3, "name": "cat", "supercategory": "all"}]
    return json.dumps({"images": images, "annotations": objects, "categories": names}, indent=1).encode()


def check_detection(found: DetectionSet) -> None:
    assert found.items
    assert len(set(found.names)) == len(found.names) == len(found.category_ids)
    assert len({item.path for item in found.items}) == len(found.items)
    assert all(name.strip() for name in found.names)
    for text in (*found.names, *found.notes):
        assert "\n" not in text
        text.encode()
    for item in found.items:
        boxes, size = item.truth.boxes.xyxy, item.truth.boxes.size
        assert bool(boxes.isfinite().all())
        assert bool((boxes[:, :2] >= 0).all())
        assert not len(boxes) or boxes[:, 2].max() <= size.width
        assert not len(boxes) or boxes[:, 3].max() <= size.height


def check_classification(found: ClassificationSet) -> None:
    assert found.items
    assert len(set(found.names)) == len(found.names)
    assert all(0 <= item.label < len(found.names) for item in found.items)


def detection(layout: str | None, at: str = "") -> Callable[[Path], None]:
    def read(root: Path) -> None:
        if layout is None:
            recognise(root / at)
        for split in splits(root / at, layout) or ("",):
            found = read_detection(root / at, split, layout)
            check_detection(found)
            without_empty_classes(found)

    return read


def classification(layout: str | None) -> Callable[[Path], None]:
    def read(root: Path) -> None:
        for split in splits(root, layout) or ("",):
            check_classification(read_classification(root, split, layout))

    return read


def proposals(name: str) -> Callable[[Path], None]:
    def read(root: Path) -> None:
        table = read_proposals(root / name)
        assert table
        for boxes in table.values():
            assert bool(boxes.isfinite().all())

    return read


def voc_labels(root: Path) -> None:
    paths, names, shown = read_voc_labels(root, "train")
    assert tuple(shown.shape) == (len(paths), len(names))


def mat(content: dict[str, object], compressed: bool) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, content, do_compression=compressed)
    return stream.getvalue()


def cells(values: list[object]) -> np.ndarray:
    out = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        out[row, 0] = value
    return out


def parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet as writer

    columns = {"image": ["a.png", "b.png"], "x0": [0, 1], "y0": [0, 2], "x1": [5, 6.5], "y1": [5, 7]}
    stream = io.BytesIO()
    writer.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def targets() -> dict[str, Target]:
    """Every data set that is mutated, by name."""
    boxes: list[object] = [np.array([[1.0, 2, 5, 6], [2, 1, 4, 8]]), np.array([[1, 1, 3, 3]], np.uint16)]
    proposed = {"images": cells(["a", "b"]), "boxes": cells(boxes)}
    kinds = np.zeros(2, dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    kinds[0], kinds[1] = (1, "n02"), (2, "n01")
    voc = {f"Annotations/{n}.xml": XML.format(n).encode() for n in "ab"}
    lists = {"ImageSets/Main/train.txt": b"a\n", "ImageSets/Main/val.txt": b"b.png 1\n"}
    label = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.5 0.2 0.3 0.9\n"
    inet = {"train/n01/1.png": PNG, "train/n02/2.png": PNG, "val/x.png": PNG, "val/y.png": PNG}
    truth = {"ILSVRC2012_validation_ground_truth.txt": b"2\n1\n"}
    pair = {"a.png": PNG, "b.png": PNG}
    photos = {f"JPEGImages/{name}": content for name, content in pair.items()}
    return {
        "voc": Target({**voc, **lists, **photos}, detection("voc")),
        "voc-labels": Target({**voc, **photos, "ImageSets/Main/cat_train.txt": b"a 1\nb -1\n"}, voc_labels),
        "voc-flat": Target({**pair, "a.xml": XML.format("a").encode()}, detection(None)),
        "coco": Target(
            {"annotations/instances_train.json": coco(), "train/a.png": PNG, "train/b.png": PNG},
            detection("coco"),
        ),
        "coco-exported": Target(
            {"valid/_annotations.coco.json": coco(), **under("valid", pair)}, detection(None)
        ),
        "yolo": Target(
            {
                "data.yaml": YAML.encode(),
                "val.txt": b"./images/train/a.png\n",
                "labels/train/a.txt": label,
                "labels/val/b.txt": label,
                "images/train/a.png": PNG,
                "images/val/b.png": PNG,
            },
            detection("yolo"),
        ),
        "yolo-file": Target(
            {
                "set.yml": YAML.replace(", val.txt", "").encode(),
                "images/train/a.png": PNG,
                "images/val/b.png": PNG,
                "labels/train/a.txt": label,
                "labels/val/b.txt": label,
            },
            detection("yolo", "set.yml"),
        ),
        "yolo-folders": Target(
            {
                **under("images", pair),
                "labels/a.txt": label,
                "labels/b.txt": b"",
                "classes.txt": b"cat\ndog\n",
            },
            detection(None),
        ),
        "yolo-flat": Target({**pair, "a.txt": label}, detection(None)),
        "folders": Target(
            {"cat/a.png": PNG, "dog/b.png": PNG, "dog/b.json": b"{}"}, classification("folders")
        ),
        "folders-guessed": Target({"cat/a.png": PNG, "dog/b.png": PNG, "x.txt": b"1"}, classification(None)),
        "ilsvrc-list": Target({**inet, "val.txt": b"x.png 0\ny.png 1\n"}, classification("folders")),
        "ilsvrc-csv": Target(
            {**inet, "LOC_val_solution.csv": b"ImageId,PredictionString\nx,n02 1 2 3 4\ny,n01 1 2 3 4\n"},
            classification("folders"),
        ),
        "ilsvrc-kit": Target(
            {**inet, **truth, "meta.mat": mat({"synsets": kinds}, False)}, classification("folders")
        ),
        "proposals-json": Target(
            {"p.json": json.dumps({"a.png": [[0, 0, 1, 1, 0.5]], "x\\b.png": [[1, 2, 3, 4]]}).encode()},
            proposals("p.json"),
        ),
        "proposals-rows": Target(
            {"p.json": json.dumps([{"image": "a", "boxes": [[0, 0, 1, 1]]}]).encode()}, proposals("p.json")
        ),
        "proposals-csv": Target(
            {"p.csv": b'image,x0,y0,x1,y1,score\na,0,0,1,1,-2\n"b,c",0,0,2,2,1e3\n'}, proposals("p.csv")
        ),
        "proposals-mat": Target({"p.mat": mat(proposed, False)}, proposals("p.mat")),
        "proposals-mat-deflated": Target({"p.mat": mat(proposed, True)}, proposals("p.mat")),
        "proposals-parquet": Target({"p.parquet": parquet()}, proposals("p.parquet")),
    }


def under(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": content for name, content in files.items()}
