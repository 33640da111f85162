"""Write data sets and predictions."""

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
from sppnet.files import make_folder, write_bytes, write_text
from sppnet.structures import Detections, GroundTruth, ImageSize

PredictionFormat: TypeAlias = Literal["json", "coco", "csv"]
PREDICTION_FORMATS: tuple[PredictionFormat, ...] = get_args(PredictionFormat)

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")

CSV_COLUMNS = ("image", "x0", "y0", "x1", "y1", "score", "label", "name")


def write_voc(
    root: str | os.PathLike[str], items: Iterable[tuple[str, Pixels, GroundTruth]], split: str
) -> Path:
    """Write a split of a data set in VOC layout; other splits in the folder stay.

    Images are written as JPEG of quality 95 without chroma subsampling. Box edges are written as integers if
    they are, else with their decimals.

    Args:
        root: the folder, made if it is missing.
        items: the key (file name without extension), the pixels, uint8 ``[H, W, 3]``, and the objects of each
            image.
        split: the name of the list in ``ImageSets/Main``.

    Returns:
        The path of the list of the split.

    Raises:
        UserError: a key is not a plain file name or is duplicate, the objects are those of another image
            size, or an object is a crowd, which VOC cannot express.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes
        >>> boxes = Boxes(torch.tensor([[1.0, 1, 4, 4]]), ImageSize(8, 8))
        >>> truth = GroundTruth.make(boxes, torch.tensor([0]), ("cat",))
        >>> items = [("a", np.zeros((8, 8, 3), np.uint8), truth)]
        >>> write_voc(getfixture("tmp_path"), items, "train").read_text().split()
        ['a']
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
        write_bytes(folders[0] / f"{key}.jpg", jpeg.getvalue())
        write_bytes(folders[1] / f"{key}.xml", _voc_xml(f"{key}.jpg", truth))
    path = folders[2] / f"{split}.txt"
    write_bytes(path, "".join(f"{key}\n" for key in keys).encode())
    return path


def write_predictions(
    path: str | os.PathLike[str],
    results: Sequence[tuple[str | os.PathLike[str], Detections]],
    format: PredictionFormat = "json",
    category_ids: Sequence[int | str] | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> None:
    r"""Write the detections of images to a file; its folder is made if it is missing.

    - ``json``: the class names and, for every image in order, its name, size and detections.
    - ``coco``: COCO results, ``bbox`` as (x, y, width, height). Without ``image_ids``, ``image_id`` is the
      name of the image without folder and extension, as a number if possible (`image_id_of_name`).
    - ``csv``: one line per detection with the columns `CSV_COLUMNS`. A text that a spreadsheet would
      evaluate as a formula (it starts with ``=``, ``+``, ``-``, ``@``, a tab, a line break or an apostrophe)
      gets an apostrophe in front, which `read_csv_text` removes.

    Numbers have the fewest digits that give the same float32. Boxes have continuous edges.

    Args:
        path: the file.
        results: images, by path or by key, and their detections, all with the same class names.
        format: one of `PREDICTION_FORMATS`.
        category_ids: for ``coco``, the id of each class; 1, 2, ... when None.
        image_ids: for ``coco``, the id of each image; derived from the names when None.

    Raises:
        UserError: the format is unknown, class names differ between images, the number of ids is wrong, ids
            are duplicate, or the file cannot be written.

    Examples:
        >>> path = getfixture("tmp_path") / "found.json"
        >>> write_predictions(path, [], "coco")
        >>> path.read_text()
        '[]\n'
    """
    text = predictions_text(results, format, category_ids, image_ids)
    target = Path(path)
    make_folder(target.parent)
    write_text(target, text)


def predictions_text(
    results: Sequence[tuple[str | os.PathLike[str], Detections]],
    format: PredictionFormat = "json",
    category_ids: Sequence[int | str] | None = None,
    image_ids: Sequence[int | str] | None = None,
) -> str:
    r"""Return the content of the file that `write_predictions` writes.

    Raises:
        UserError: an argument of `write_predictions` is invalid.

    Examples:
        >>> predictions_text([], "coco")
        '[]\n'
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
            return _json(named, names)
        case "coco":
            return _coco(named, category_ids, image_ids)
        case "csv":
            return _csv(named)


def _check_voc(key: str, keys: dict[str, None], pixels: Pixels, truth: GroundTruth) -> None:
    if not key or key != key.strip() or set(key) & set('/\\:*?"<>|\n') or key in {".", ".."}:
        raise UserError(f"key {key!r}", "a plain file name without extension", repr(key))
    if key in keys:
        raise UserError(f"key {key!r}", "each key once", "a duplicate key")
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
    numbers = {"width": truth.boxes.size.width, "height": truth.boxes.size.height, "depth": 3}
    for tag, number in numbers.items():
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


def _shortest(values: Tensor) -> list[Any]:
    """Return numbers as floats whose text has the fewest digits that give the same float32."""
    array = values.detach().cpu().numpy().astype(np.float32)
    return np.array([float(str(v)) for v in array.ravel()]).reshape(array.shape).tolist()


def _rows(found: Detections) -> list[tuple[list[float], float, int]]:
    return list(zip(_shortest(found.boxes.xyxy), _shortest(found.scores), found.labels.tolist(), strict=True))


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


def coco_rows(
    found: Detections, image_id: int | str, category_ids: Sequence[int | str] | None = None
) -> list[dict[str, Any]]:
    """Convert the detections of an image to COCO results.

    Args:
        found: the detections.
        image_id: the id of the image in its data set.
        category_ids: the id of each class; 1, 2, ... when None.

    Raises:
        UserError: the number of ids differs from that of the classes.

    Examples:
        >>> from sppnet.structures import Boxes
        >>> box = Boxes(Tensor([[1, 2, 4, 8]]), ImageSize(10, 10))
        >>> found = Detections(box, Tensor([0.5]), Tensor([0]).long(), ("cat",))
        >>> coco_rows(found, 7, (90,))
        [{'image_id': 7, 'category_id': 90, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    ids = range(1, len(found.names) + 1) if category_ids is None else category_ids
    if len(ids) != len(found.names):
        raise UserError("category_ids", f"{len(found.names)} ids, one per class", len(ids))
    rows: list[dict[str, Any]] = []
    for (x0, y0, x1, y1), score, label in _rows(found):
        box = [x0, y0, float(str(np.float32(x1 - x0))), float(str(np.float32(y1 - y0)))]
        rows.append({"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score})
    return rows


def image_id_of_name(image: str | os.PathLike[str]) -> int | str:
    """Return the COCO id of an image from its name without extension, as a number if possible.

    Examples:
        >>> image_id_of_name("val/000012.jpg"), image_id_of_name("img.v2")
        (12, 'img.v2')
    """
    name = Path(image)
    stem = name.stem if name.suffix.lower() in IMAGE_ENDINGS else name.name
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else stem


def _coco(
    named: Sequence[tuple[str, Detections]],
    category_ids: Sequence[int | str] | None,
    image_ids: Sequence[int | str] | None,
) -> str:
    if image_ids is None:
        image_ids = [image_id_of_name(image) for image, _ in named]
    if len(image_ids) != len(named):
        raise UserError("image_ids", f"{len(named)} ids, one per image", len(image_ids))
    images: dict[str | int, str] = {}
    results: list[dict[str, Any]] = []
    for image_id, (image, found) in zip(image_ids, named, strict=True):
        if image_id in images:
            raise UserError(image, "a unique image id", f"the id of {images[image_id]}")
        images[image_id] = image
        results += coco_rows(found, image_id, category_ids)
    return json.dumps(results) + "\n"


def _csv(named: Sequence[tuple[str, Detections]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for image, found in named:
        for box, score, label in _rows(found):
            writer.writerow([csv_text(image), *box, score, label, csv_text(found.names[label])])
    return text.getvalue()


def csv_text(text: str) -> str:
    """Escape a text that a spreadsheet would evaluate as a formula; `read_csv_text` reverts it.

    Examples:
        >>> csv_text("=1+1"), csv_text("cat")
        ("'=1+1", 'cat')
    """
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def read_csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_text` wrote.

    Examples:
        >>> read_csv_text("'=1+1"), read_csv_text("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell
