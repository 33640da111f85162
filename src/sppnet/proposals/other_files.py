"""Proposals in MATLAB and Parquet files."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import MissingExtraError, UserError
from sppnet.inputs.mat import read_mat
from sppnet.inputs.text import shown
from sppnet.inputs.words import shortened

_MOST_ROWS = 50_000_000  # of a Parquet file; the metadata of a damaged file may state any number


def mat_rows(file: Path) -> Iterator[tuple[str, str, list[list[float]]]]:
    """Yield the boxes of a .mat file of R-CNN or SPP-net.

    It has the names ``images``, without suffix, and for each of them a matrix ``boxes`` ``[n, 4]`` with
    columns y0, x0, y1, x1 in pixels counted from 1, inclusive (SPP_net release, selective_search_boxes.m).

    Yields:
        The location of an entry, its image and its boxes with continuous edges.

    Raises:
        UserError: the content is invalid, or the file is of MATLAB 7.3, which is HDF5.
    """
    content = read_mat(file)
    images, boxes = (_cells(content.get(name)) for name in ("images", "boxes"))
    if images is None or boxes is None:
        raise UserError(file, "the cells images and boxes", shortened(list(content)) or "none")
    if len(images) != len(boxes):
        raise UserError(file, f"{len(images)} matrices of boxes, one per image", len(boxes))
    for number, (image, table) in enumerate(zip(images, boxes, strict=True)):
        where = f"{file}, entry {number + 1}"
        if not isinstance(image, str) or not image.strip():
            raise UserError(where, "the name of an image", shown(image))
        if not isinstance(table, np.ndarray) or table.dtype.kind not in "iuf":
            raise UserError(where, "a matrix [n, 4]", shown(table))
        matrix = cast(NDArray[Any], table).astype(np.float64)
        if matrix.size and (matrix.ndim != 2 or matrix.shape[1] != 4):
            raise UserError(where, "a matrix [n, 4]", list(matrix.shape))
        matrix = matrix.reshape(-1, 4)[:, [1, 0, 3, 2]]
        matrix[:, :2] -= 1
        yield where, image.strip(), matrix.tolist()


def _cells(value: object) -> list[object] | None:
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return None
    return cast(list[object], value.reshape(-1).tolist())


def parquet_rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield the rows of a Parquet file with the columns image, x0, y0, x1, y1 and optionally score.

    Yields:
        The location of a row, its image and its numbers.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UserError: the content is invalid.
    """
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        arrow: Any = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "proposals in Parquet files") from error
    names: list[str] = []
    row = 0
    try:
        with parquet.ParquetFile(file) as content:
            present: list[str] = list(content.schema_arrow.names)
            if not {"image", *columns} <= set(present):
                expected = f"the columns image, {', '.join(columns)}"
                raise UserError(file, expected, shortened(present, most=20) or "none")
            if content.metadata.num_rows > _MOST_ROWS:
                raise UserError(file, f"at most {_MOST_ROWS:,} rows", f"{content.metadata.num_rows:,}")
            names = ["image", *columns, *(["score"] if "score" in present else [])]
            for batch in content.iter_batches(columns=names, use_threads=False):
                for image, *values in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    row += 1
                    if not isinstance(image, str | int):
                        raise UserError(f"{file}, row {row}", "the name of an image", shown(image))
                    yield f"{file}, row {row}", str(image), values
    except UserError:
        raise
    except (arrow.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError) as error:
        raise UserError(file, "a Parquet file", str(error)[:200] or type(error).__name__) from error
