"""Writing data sets and predictions; every file is written beside its place and then renamed."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from PIL import Image
from torch import Tensor

from sppnet.data.images import IMAGE_ENDINGS, Pixels
from sppnet.errors import UserError
from sppnet.files import make_folder, write_bytes
from sppnet.structures import Detections, GroundTruth, ImageSize

PredictionFormat: TypeAlias = Literal["json", "coco", "csv"]
PREDICTION_FORMATS: tuple[PredictionFormat, ...] = get_args(PredictionFormat)

CSV_COLUMNS = ("image", "x0", "y0", "x1", "y1", "score", "label", "name")


def write_voc(
    root: str | os.PathLike[str], items: Iterable[tuple[str, Pixels, GroundTruth]], split: str
) -> Path:
    """Write one split of a data set in VOC layout; splits written before stay.

    Images become JPEG of quality 95 with full colour resolution. Box edges stay what they are: whole
    numbers are written as such, others with their decimals.

    Args:
        root: the folder, made where missing.
        items: of every image its key (the file name without ending), its pixels, uint8 ``[H, W, 3]``,
            and its objects.
        split: the name of the list in ``ImageSets/Main``.

    Returns:
        The list of the split.

    Raises:
        UserError: a key that is no plain file name or comes twice, truth of another image size, or a
            crowd, which VOC cannot express.
    """
    home = Path(root)
    folders = home / "JPEGImages", home / "Annotations", home / "ImageSets" / "Main"
    for folder in folders:
        make_folder(folder)
    keys: dict[str, None] = {}
    for key, pixels, truth in items:
        _check_voc(key, keys, pixels, truth)
        keys[key] = None
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
        _write(folders[0] / f"{key}.jpg", jpeg.getvalue())
        _write(folders[1] / f"{key}.xml", _voc_xml(f"{key}.jpg", truth))
    path = folders[2] / f"{split}.txt"
    _write(path, "".join(f"{key}\n" for key in keys).encode())
    return path


def write_predictions(
    path: str | os.PathLike[str],
    results: Sequence[tuple[str | os.PathLike[str], Detections]],
    format: PredictionFormat = "json",
    category_ids: Sequence[int] | None = None,
) -> None:
    """Write what was found in images to one file; its folder is made where missing.

    - ``json``: the class names and, for every image in order, its name, size and detections.
    - ``coco``: COCO results, ``bbox`` as (x, y, width, height); ``image_id`` is the image's name
      without folder and ending, a number where it is one.
    - ``csv``: one line a detection, the columns `CSV_COLUMNS`; an image without any has no line.

    Numbers are the shortest that read back as the same float32. Boxes have continuous edges.

    Args:
        path: the file.
        results: images, by path or by key, and their detections, all with the same class names.
        format: one of `PREDICTION_FORMATS`.
        category_ids: for ``coco``, the data set's number of each class; 1, 2, ... when None.

    Raises:
        UserError: an unknown format, differing class names, or a number of ids other than of classes;
            for ``coco`` also two images of one name.
    """
    if format not in PREDICTION_FORMATS:
        raise UserError("format", f"one of {', '.join(PREDICTION_FORMATS)}", repr(format))
    named = [(os.fspath(image), found) for image, found in results]
    names = named[0][1].names if named else ()
    for image, found in named:
        if found.names != names:
            raise UserError(image, f"the class names {', '.join(names)}", ", ".join(found.names))
    match format:
        case "json":
            text = _json(named, names)
        case "coco":
            text = _coco(named, names, category_ids)
        case "csv":
            text = _csv(named)
    target = Path(path)
    make_folder(target.parent)
    _write(target, text.encode("utf-8", "backslashreplace"))


def _write(path: Path, content: bytes) -> None:
    write_bytes(path, content)


def _check_voc(key: str, keys: dict[str, None], pixels: Pixels, truth: GroundTruth) -> None:
    if not key or key != key.strip() or set(key) & set('/\\:*?"<>|\n') or key in {".", ".."}:
        raise UserError(f"key {key!r}", "a plain file name without ending", repr(key))
    if key in keys:
        raise UserError(f"key {key!r}", "each key once", "it twice")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"image {key!r}", "uint8 [H, W, 3]", f"{pixels.dtype} {list(pixels.shape)}")
    size = ImageSize(pixels.shape[0], pixels.shape[1])
    if truth.boxes.size != size:
        raise UserError(f"image {key!r}", f"boxes on {size}", truth.boxes.size)
    if bool(truth.crowd.any()):
        raise UserError(f"image {key!r}", "single objects", "a crowd, which VOC cannot express")


def _voc_xml(name: str, truth: GroundTruth) -> bytes:
    tree = Element("annotation")
    SubElement(tree, "filename").text = name
    size = SubElement(tree, "size")
    stated = {"width": truth.boxes.size.width, "height": truth.boxes.size.height, "depth": 3}
    for tag, number in stated.items():
        SubElement(size, tag).text = str(number)
    rows = zip(truth.boxes.xyxy.tolist(), truth.labels.tolist(), truth.difficult.tolist(), strict=True)
    for (x0, y0, x1, y1), label, difficult in rows:
        node = SubElement(tree, "object")
        SubElement(node, "name").text = truth.names[label]
        SubElement(node, "difficult").text = str(int(difficult))
        box = SubElement(node, "bndbox")
        for tag, value in {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}.items():
            SubElement(box, tag).text = str(int(value)) if value.is_integer() else repr(value)
    indent(tree)
    return tostring(tree, encoding="utf-8") + b"\n"


def _short(values: Tensor) -> list[Any]:
    """The numbers as floats whose text is the shortest that reads back as the same float32."""
    array = values.detach().cpu().numpy().astype(np.float32)
    return np.array([float(str(v)) for v in array.ravel()]).reshape(array.shape).tolist()


def _rows(found: Detections) -> list[tuple[list[float], float, int]]:
    return list(zip(_short(found.boxes.xyxy), _short(found.scores), found.labels.tolist(), strict=True))


def _json(named: Sequence[tuple[str, Detections]], names: tuple[str, ...]) -> str:
    images = [
        {
            "image": image,
            "height": found.boxes.size.height,
            "width": found.boxes.size.width,
            "detections": [
                {"box": box, "score": score, "label": label, "name": names[label]}
                for box, score, label in _rows(found)
            ],
        }
        for image, found in named
    ]
    return json.dumps({"names": names, "images": images}, indent=1, ensure_ascii=False) + "\n"


def _coco(
    named: Sequence[tuple[str, Detections]], names: tuple[str, ...], category_ids: Sequence[int] | None
) -> str:
    ids = range(1, len(names) + 1) if category_ids is None else category_ids
    if len(ids) != len(names):
        raise UserError("category_ids", f"{len(names)} numbers, one a class", len(ids))
    images: dict[str | int, str] = {}
    results: list[dict[str, Any]] = []
    for image, found in named:
        name = Path(image)
        stem = name.stem if name.suffix.lower() in IMAGE_ENDINGS else name.name
        image_id = int(stem) if stem.isascii() and stem.isdigit() else stem
        if image_id in images:
            raise UserError(image, "another name than every other image's", f"that of {images[image_id]}")
        images[image_id] = image
        for (x0, y0, x1, y1), score, label in _rows(found):
            box = [x0, y0, float(str(np.float32(x1 - x0))), float(str(np.float32(y1 - y0)))]
            results.append({"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score})
    return json.dumps(results) + "\n"


def _csv(named: Sequence[tuple[str, Detections]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for image, found in named:
        for box, score, label in _rows(found):
            writer.writerow([image, *box, score, label, found.names[label]])
    return text.getvalue()
