"""Output files of a bulk extraction: features, their index and failed images."""

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
    """Paths of the output files.

    Attributes:
        data: the features.
        index: one JSON object per feature vector: image, height, width and, for boxes, the box. None for
            Parquet, which has them as columns.
        failed: one JSON object per image without features: image, error.
        job: options and counts; written last.
        parts: the folder of parts, removed at the end.
    """

    data: Path
    index: Path | None
    failed: Path
    job: Path
    parts: Path

    def names(self) -> list[str]:
        """Return the names of the files, without the folder of parts."""
        paths = (self.data, self.index, self.failed, self.job)
        return [path.name for path in paths if path is not None]

    def exist(self) -> bool:
        """Return whether a file with one of the names exists, of any origin."""
        return any(os.path.lexists(self.data.with_name(name)) for name in self.names())

    def hold(self, job: Job) -> bool:
        """Return whether the files are complete and belong to this job."""
        try:
            found: Any = json.loads(self.job.read_bytes())
            return found["digest"] == job.digest and self.data.exists()
        except (OSError, ValueError, KeyError, TypeError):
            return False


def table_files(out: Path) -> TableFiles:
    """Return the output files for the path ``out``.

    Raises:
        UserError: the suffix is not .npy or .parquet, or the path is a folder.
        MissingExtraError: pyarrow, needed for a Parquet file, is not installed.
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
    except (OSError, ValueError) as error:  # such as a name that is too long with the suffix
        raise UserError(failed, "a file that can be written", getattr(error, "strerror", error)) from error
    return TableFiles(out, None if out.suffix.lower() == ".parquet" else index, failed, job, parts)


def assemble(store: PartStore, job: Job, images: Sequence[Path], files: TableFiles) -> None:
    """Write the output files from the parts; they are renamed when all are complete.

    The file of the job is removed before the renaming and written last: without it, the other files may
    belong to different jobs.
    """
    rows = sum(sum(part.lengths) for part in store.parts(features=False))
    failed = 0
    with ExitStack() as stack:
        # The contexts end in reverse order: the features are renamed last.
        data = stack.enter_context(replacing(files.data, durable=True))
        failures = stack.enter_context(replacing(files.failed, durable=True))
        write = _write_parquet if files.index is None else _write_npy
        write(data, _groups(store, job, images), job, rows)
        if files.index is not None:
            index = stack.enter_context(replacing(files.index, durable=True))
            for part in store.parts(features=False):
                _write_index(index, part, images)
            index.flush()
        for part in store.parts(features=False):
            failed += len(part.failures)
            for position, reason in part.failures:
                _write_line(failures, {"image": printable(images[position]), "error": printable(reason)})
        failures.flush()
        data.flush()
        remove(files.job)
    facts = {**asdict(job), "rows": rows, "failed": failed}
    write_text(files.job, json.dumps(facts, indent=2, sort_keys=True) + "\n", durable=True)


def read_summary(files: TableFiles) -> dict[str, Any]:
    """Read counts and failures of complete files."""
    facts: Any = json.loads(files.job.read_bytes())
    lines = [json.loads(line) for line in files.failed.read_text("utf-8").splitlines()]
    return {
        "images": facts["images"] - facts["failed"],
        "rows": facts["rows"],
        "length": facts["length"],
        "failures": tuple((line["image"], line["error"]) for line in lines),
    }


def printable(name: object) -> str:
    """Convert a path to valid UTF-8; other bytes are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class _Group:
    """Consecutive feature vectors with path, height and width of the image, and box."""

    features: NDArray[Any]
    images: list[str]
    sizes: NDArray[Any]
    boxes: NDArray[Any] | None


def _groups(store: PartStore, job: Job, images: Sequence[Path]) -> Iterator[_Group]:
    """Yield all features in groups whose boundaries do not depend on those of the parts."""
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
            waiting.append(_Group(part.features[0][start:stop], names[start:stop], sizes[start:stop], boxes))
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
        np.concatenate([group.features for group in groups]),
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
        stream.write(np.ascontiguousarray(group.features).data)


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
            flat = arrow.array(group.features.reshape(-1), value)
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
