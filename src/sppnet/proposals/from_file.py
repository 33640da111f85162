"""Proposals of other programs, read from a file."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.inputs.documents import load_json
from sppnet.inputs.paths import is_file, name_parts
from sppnet.inputs.text import encoding_of, reading, shown
from sppnet.inputs.values import is_encodable, real
from sppnet.inputs.words import shortened
from sppnet.proposals.other_files import mat_rows, parquet_rows
from sppnet.structures import Boxes, ImageSize, Proposals

_SIDES = ("x0", "y0", "x1", "y1")
_LARGEST = 1e9  # pixels; far beyond the range in which float32 represents single pixels


def read_proposals(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read proposals from a file.

    - JSON: ``{"image.jpg": [[x0, y0, x1, y1], ...], ...}`` or
      ``[{"image": "image.jpg", "boxes": [[x0, y0, x1, y1], ...]}, ...]``.
    - CSV: a header with the columns image, x0, y0, x1, y1 and optionally score, in any order; other columns
      are ignored.
    - Parquet: the same columns; needs the extra ``parquet``.
    - MATLAB: the .mat files of R-CNN and SPP-net.

    A box may have a score as fifth number. If every box of an image has one, the boxes are sorted by score,
    best first, ties in the order of the file. Otherwise they are in the order of the file.

    Args:
        path: a file that ends in ``.json``, ``.csv``, ``.parquet`` or ``.mat``.

    Returns:
        float32 ``[N, 4]`` by image: ``(x0, y0, x1, y1)`` in pixels, continuous edges. A key is the file name
        of the image, without folders unless two images have equal names. See `proposals_for`.

    Raises:
        UserError: the file does not exist, has another suffix or invalid content, or there is no box. It
            names the entry.
        MissingExtraError: pyarrow, needed for a Parquet file, is not installed.

    Examples:
        >>> _ = Path("boxes.json").write_text('{"a.jpg": [[10, 20, 30, 60]]}', encoding="utf-8")
        >>> read_proposals("boxes.json")
        {'a.jpg': tensor([[10., 20., 30., 60.]])}
    """
    file = Path(path)
    if not is_file(file):
        raise UserError(file, "a file of proposals, .json, .csv, .parquet or .mat", "no such file")
    if file.suffix.lower() not in _READERS:
        raise UserError(file, "a file that ends in .json, .csv, .parquet or .mat", file.suffix or "no ending")
    by_image: dict[str, list[list[float]]] = {}
    with reading(file):
        for where, image, box in _READERS[file.suffix.lower()](file):
            boxes = by_image.setdefault(_key(where, image), [])
            if box is not None:
                boxes.append(_checked(where, box))
    if not any(by_image.values()):
        raise UserError(file, "at least one proposal", "none")
    shared = Counter(PurePosixPath(image).name for image in by_image)
    return {
        image if shared[PurePosixPath(image).name] > 1 else PurePosixPath(image).name: _ordered(boxes)
        for image, boxes in by_image.items()
    }


def proposals_for(table: Mapping[str, Tensor], image: str | os.PathLike[str], size: ImageSize) -> Proposals:
    """Return the proposals of one image, clipped to it, with scores of 0.

    The key of an image is the longest suffix of its path in the table, or else its name without suffix.

    Args:
        table: boxes by image, from `read_proposals`.
        image: path of the image.
        size: size of the image.

    Returns:
        The proposals, in the order of the table.

    Raises:
        UserError: the image has no entry, or a box is outside the image.

    Examples:
        >>> table = {"a.jpg": torch.tensor([[10.0, 20, 300, 60]])}
        >>> proposals_for(table, "photos/a.jpg", ImageSize(100, 200)).boxes.xyxy
        tensor([[ 10.,  20., 200.,  60.]])
    """
    path = Path(image)
    ends = ["/".join(path.parts[start:]) for start in range(len(path.parts))]
    key = next((end for end in [*ends, path.stem] if end in table), None) or _alike(table, path)
    if key is None:
        some = ", ".join(list(table)[:3])
        raise UserError(path, "an entry in the file of proposals", f"entries for {some} and others")
    xyxy = table[key]
    outside = (xyxy[:, 0] >= size.width) | (xyxy[:, 1] >= size.height) | (xyxy[:, 2:] <= 0).any(1)
    if bool(outside.any()):
        first = int(outside.nonzero()[0, 0])
        expected = f"boxes inside the image of {size.width} x {size.height} (width x height)"
        raise UserError(path, expected, f"box {xyxy[first].tolist()}")
    return Proposals(Boxes(xyxy, size).clip(), torch.zeros(len(xyxy)))


def _key(where: str, image: str) -> str:
    parts = name_parts(image)
    if not parts or not is_encodable(image):
        raise UserError(where, "the name of an image", shown(image))
    return "/".join(parts)


def _alike(table: Mapping[str, Tensor], path: Path) -> str | None:
    """Return the key that shares the longest suffix with a path, if its folders are of another machine."""
    ranked: list[tuple[int, str]] = []
    for key in table:
        if key.endswith((path.name, path.stem)):
            parts = PurePosixPath(key).parts
            if parts[-1] in {path.name, path.stem}:
                pairs = zip(reversed(parts[:-1]), reversed(path.parts[:-1]), strict=False)
                ranked.append((sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), key))
    best = max((rank for rank, _ in ranked), default=0)
    keys = [key for rank, key in ranked if rank == best]
    if len(keys) > 1:
        raise UserError(path, "one entry in the file of proposals", shortened(keys))
    return keys[0] if keys else None


def _json_rows(file: Path) -> Iterator[tuple[str, str, object]]:
    for where, image, boxes in _json_entries(file, load_json(file)):
        if not isinstance(boxes, list):
            raise UserError(where, "a list of boxes", type(boxes).__name__)
        yield where, image, None
        for number, box in enumerate(cast(list[Any], boxes)):
            yield f"{where}, box {number}", image, box


def _json_entries(file: Path, content: object) -> Iterator[tuple[str, str, object]]:
    if isinstance(content, dict):
        for image, boxes in cast(dict[str, object], content).items():
            yield f"{file}, {image[:200]}", image, boxes
    elif isinstance(content, list):
        for number, entry in enumerate(cast(list[Any], content)):
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "boxes" not in entry:
                raise UserError(f"{file}, entry {number}", 'an object with "image" and "boxes"', shown(entry))
            yield f"{file}, {entry['image'][:200]}", entry["image"], entry["boxes"]
    else:
        raise UserError(file, "an object or a list", type(content).__name__)


def _csv_rows(file: Path) -> Iterator[tuple[str, str, object]]:
    with file.open("rb") as stream:
        encoding = encoding_of(stream.read(4))
    try:
        with file.open(newline="", encoding="utf-8-sig" if encoding == "utf-8" else encoding) as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or ()
            if not {"image", *_SIDES} <= set(columns):
                expected = f"a header with the columns image, {', '.join(_SIDES)}"
                raise UserError(file, expected, shortened(list(columns), most=20) or "an empty file")
            if len(set(columns)) < len(columns):
                raise UserError(file, "each column once", shortened(list(columns), most=20))
            sides = [*_SIDES, *(["score"] if "score" in columns else [])]
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                if not row["image"]:
                    raise UserError(where, "the name of an image", "none")
                yield where, row["image"], [row[side] for side in sides]
    except (csv.Error, UnicodeError) as error:
        raise UserError(file, "a CSV file in UTF-8", error) from error


def _parquet_rows(file: Path) -> Iterator[tuple[str, str, object]]:
    return iter(parquet_rows(file, _SIDES))


def _mat_rows(file: Path) -> Iterator[tuple[str, str, object]]:
    for where, image, boxes in mat_rows(file):
        yield where, image, None
        for number, box in enumerate(boxes):
            yield f"{where}, box {number + 1}", image, box


_READERS = {".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows, ".mat": _mat_rows}


def _checked(where: str, box: object) -> list[float]:
    values = cast(list[Any], box) if isinstance(box, list) else []
    try:
        numbers = [real(value) for value in values] if len(values) in {4, 5} else []
    except ValueError:
        numbers = []
    if not numbers or max(map(abs, numbers[:4])) > _LARGEST:
        raise UserError(where, "finite numbers x0, y0, x1, y1 and optionally a score", shown(box))
    if numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
        raise UserError(where, "a box with x0 < x1 and y0 < y1", shown(box))
    return numbers


def _ordered(boxes: list[list[float]]) -> Tensor:
    if all(len(box) == 5 for box in boxes):
        boxes = sorted(boxes, key=lambda box: -box[4])
    return torch.tensor([box[:4] for box in boxes], dtype=torch.float32).reshape(-1, 4)
