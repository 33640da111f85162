"""Windows from MATLAB's and from Parquet files."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.errors import MissingExtraError, UserError


def mat_rows(file: Path) -> Iterator[tuple[str, str, list[list[float]]]]:
    """The boxes of the .mat files that came with R-CNN and SPP-net.

    They hold ``images``, names without ending, and ``boxes``, a matrix ``[n, 4]`` for each of them, whose
    columns are y0, x0, y1, x1 in pixels counted from 1, the last one inside (paper section 3.1).

    Yields:
        Where an entry is, its image and its boxes with continuous edges.

    Raises:
        UserError: another content, or a file of MATLAB 7.3, which is HDF5.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    todo = "In MATLAB, save(..., '-v7') writes a file that can be read."
    try:
        content: dict[str, Any] = loadmat(str(file))
    except NotImplementedError:  # scipy's word for HDF5
        raise UserError(file, "a .mat file of version 7 or before", "one of version 7.3", todo) from None
    except (MatReadError, ValueError, OSError, TypeError) as error:
        raise UserError(file, "a MATLAB file", error) from error
    if "images" not in content or "boxes" not in content:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(file, "the variables images and boxes", names or "none")
    images, boxes = content["images"].reshape(-1), content["boxes"].reshape(-1)
    if len(images) != len(boxes):
        raise UserError(file, f"{len(images)} matrices of boxes, one an image", len(boxes))
    for number, (image, table) in enumerate(zip(images, boxes, strict=True)):
        where = f"{file}, entry {number + 1}"
        matrix = np.asarray(table, dtype=np.float64)
        if matrix.size and (matrix.ndim != 2 or matrix.shape[1] != 4):
            raise UserError(where, "a matrix [n, 4]", list(matrix.shape))
        matrix = matrix.reshape(-1, 4)[:, [1, 0, 3, 2]]
        matrix[:, :2] -= 1
        yield where, str(np.asarray(image).reshape(-1)[0]), matrix.tolist()


def parquet_rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    """The rows of a Parquet file with the columns image, x0, y0, x1, y1 and perhaps score.

    Yields:
        Where a row is, its image and its numbers.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UserError: another content.
    """
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        arrow: Any = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "proposals in Parquet files") from error
    try:
        table: Any = parquet.read_table(file)
    except (arrow.ArrowInvalid, OSError) as error:
        raise UserError(file, "a Parquet file", error) from error
    there: list[str] = list(table.column_names)
    if not {"image", *columns} <= set(there):
        raise UserError(file, f"the columns image, {', '.join(columns)}", ", ".join(there))
    wanted = [*columns, *(["score"] if "score" in there else [])]
    images = table.column("image").to_pylist()
    numbers = zip(*(table.column(name).to_pylist() for name in wanted), strict=True)
    for row, (image, values) in enumerate(zip(images, numbers, strict=True), 1):
        yield f"{file}, row {row}", str(image), list(values)
