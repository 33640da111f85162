"""The files that a bulk extraction leaves: features, what their rows are, and what failed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import MissingExtraError, UserError
from sppnet.features.job import Job
from sppnet.features.parts import Part, PartStore
from sppnet.files import remove, replacing, write_text

_ENDINGS = (".npy", ".parquet")
_GROUP_BYTES = 16 * 2**20
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class TableFiles:
    """The files beside each other.

    Attributes:
        data: the features.
        index: one JSON object for each row: image, height, width and, for boxes, the box; None for
            Parquet, whose table has them as columns.
        failed: one JSON object for each image without features: image, error.
        job: options and counts; written last.
        parts: the folder of parts until the end.
    """

    data: Path
    index: Path | None
    failed: Path
    job: Path
    parts: Path

    def names(self) -> list[str]:
        """Names of the files, without the folder of parts."""
        paths = (self.data, self.index, self.failed, self.job)
        return [path.name for path in paths if path is not None]

    def exist(self) -> bool:
        """Whether a file of one of these names is there, whoever wrote it."""
        return any(os.path.lexists(self.data.with_name(name)) for name in self.names())

    def hold(self, job: Job) -> bool:
        """Whether they are complete, and of this job."""
        try:
            found: Any = json.loads(self.job.read_bytes())
            return found["digest"] == job.digest and self.data.exists()
        except (OSError, ValueError, KeyError, TypeError):
            return False


def table_files(out: Path) -> TableFiles:
    """The files of ``out``.

    Raises:
        UserError: another ending than .npy or .parquet, or a folder.
        MissingExtraError: a Parquet file without pyarrow.
    """
    if out.suffix.lower() not in _ENDINGS:
        raise UserError(out, f"a file that ends in {' or '.join(_ENDINGS)}", out.suffix or "no ending")
    if out.is_dir():
        raise UserError(out, "a file", "a folder")
    if out.suffix.lower() == ".parquet":
        _pyarrow()
    index, failed, job, parts = (
        out.with_name(f"{out.name}.{name}") for name in ("index.jsonl", "failed.jsonl", "job.json", "parts")
    )
    try:
        os.lstat(failed)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # such as a name that is too long with the ending
        raise UserError(failed, "a file that can be written", getattr(error, "strerror", error)) from error
    return TableFiles(out, None if out.suffix.lower() == ".parquet" else index, failed, job, parts)


def assemble(store: PartStore, job: Job, images: Sequence[Path], files: TableFiles) -> None:
    """Write the files from the parts; all are complete before the first gets its name.

    Without the file of the job the others may be of two jobs: it is removed first and written last.
    """
    rows = sum(sum(part.lengths) for part in store.parts(rows=False))
    failed = 0
    with ExitStack() as stack:
        # Left in reverse order: the features get their name last.
        data = stack.enter_context(replacing(files.data, durable=True))
        failures = stack.enter_context(replacing(files.failed, durable=True))
        write = _write_parquet if files.index is None else _write_npy
        write(data, _groups(store, job, images), job, rows)
        if files.index is not None:
            index = stack.enter_context(replacing(files.index, durable=True))
            for part in store.parts(rows=False):
                _write_index(index, part, images)
            index.flush()
        for part in store.parts(rows=False):
            failed += len(part.failures)
            for position, reason in part.failures:
                _write_line(failures, {"image": printable(images[position]), "error": printable(reason)})
        failures.flush()
        data.flush()
        remove(files.job)
    facts = {**asdict(job), "rows": rows, "failed": failed}
    write_text(files.job, json.dumps(facts, indent=2, sort_keys=True) + "\n", durable=True)


def read_summary(files: TableFiles) -> dict[str, Any]:
    """Counts and failures of complete files."""
    facts: Any = json.loads(files.job.read_bytes())
    lines = [json.loads(line) for line in files.failed.read_text("utf-8").splitlines()]
    return {
        "images": facts["images"] - facts["failed"],
        "rows": facts["rows"],
        "length": facts["length"],
        "failures": tuple((line["image"], line["error"]) for line in lines),
    }


def printable(name: object) -> str:
    """A path as text that UTF-8 can hold: bytes of a name that are no UTF-8 are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class _Group:
    """Consecutive rows: features, position of the image, its height and width, and the box."""

    rows: NDArray[Any]
    images: list[str]
    sizes: NDArray[Any]
    boxes: NDArray[Any] | None


def _groups(store: PartStore, job: Job, images: Sequence[Path]) -> Iterator[_Group]:
    """Yield all rows in groups whose borders do not depend on those of the parts."""
    most = max(1, min(_GROUP_ROWS, _GROUP_BYTES // (job.length * np.dtype(job.dtype).itemsize)))
    waiting: list[_Group] = []
    count = 0
    for part in store.parts():
        owner = np.repeat(np.array(part.positions, np.int64), part.lengths)
        sizes = np.repeat(np.array(part.sizes, np.int64).reshape(-1, 2), part.lengths, axis=0)
        names = [printable(images[position]) for position in owner.tolist()]
        start = 0
        while start < len(owner):
            stop = min(start + most - count, len(owner))
            boxes = part.boxes[0][start:stop] if part.boxes else None
            waiting.append(_Group(part.rows[0][start:stop], names[start:stop], sizes[start:stop], boxes))
            count += stop - start
            start = stop
            if count == most:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(groups: list[_Group]) -> _Group:
    boxes = [group.boxes for group in groups if group.boxes is not None]
    return _Group(
        np.concatenate([group.rows for group in groups]),
        [name for group in groups for name in group.images],
        np.concatenate([group.sizes for group in groups]),
        np.concatenate(boxes) if boxes else None,
    )


def _write_npy(stream: BinaryIO, groups: Iterator[_Group], job: Job, rows: int) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(job.dtype)),
        "fortran_order": False,
        "shape": (rows, job.length),
    }
    np.lib.format.write_array_header_1_0(stream, header)
    for group in groups:
        stream.write(np.ascontiguousarray(group.rows).data)


def _write_parquet(stream: BinaryIO, groups: Iterator[_Group], job: Job, rows: int) -> None:
    arrow = _pyarrow()
    parquet: Any = importlib.import_module("pyarrow.parquet")
    value = arrow.float32() if job.dtype == "float32" else arrow.float16()
    sides = ("x0", "y0", "x1", "y1") if job.boxes else ()
    fields = [("image", arrow.string()), ("height", arrow.int32()), ("width", arrow.int32())]
    fields += [(side, arrow.float32()) for side in sides]
    fields.append(("features", arrow.list_(value, job.length)))
    schema = arrow.schema(fields, metadata={"sppnet": json.dumps(asdict(job), sort_keys=True)})
    with parquet.ParquetWriter(stream, schema, compression="snappy", use_dictionary=["image"]) as writer:
        for group in groups:
            columns: list[Any] = [arrow.array(group.images, arrow.string())]
            columns += [arrow.array(group.sizes[:, axis], arrow.int32()) for axis in (0, 1)]
            if group.boxes is not None:
                columns += [arrow.array(group.boxes[:, side], arrow.float32()) for side in range(4)]
            flat = arrow.array(group.rows.reshape(-1), value)
            columns.append(arrow.FixedSizeListArray.from_arrays(flat, job.length))
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema), len(group.images))


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "features in Parquet files") from error


def _write_index(stream: BinaryIO, part: Part, images: Sequence[Path]) -> None:
    start = 0
    for position, (height, width), count in zip(part.positions, part.sizes, part.lengths, strict=True):
        line: dict[str, Any] = {"image": printable(images[position]), "height": height, "width": width}
        if not part.boxes:
            _write_line(stream, line)
            continue
        for box in part.boxes[0][start : start + count].tolist():
            _write_line(stream, {**line, "box": box})
        start += count


def _write_line(stream: BinaryIO, content: dict[str, Any]) -> None:
    stream.write((json.dumps(content, ensure_ascii=False) + "\n").encode())
