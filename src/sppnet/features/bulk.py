"""Features of many images into one file; an interrupted run is resumed.

Finished images are kept as *parts* in ``OUT.parts/`` until the file is assembled from them. A part is written
atomically, so that a folder of parts is whole whenever the process ends. What the
assembled files hold does not depend on where the parts begin.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.data import Pixels, read_pixels
from sppnet.errors import UserError
from sppnet.features.job import Job, describe_job
from sppnet.features.parallel import staged_iter
from sppnet.features.parts import Part, PartStore
from sppnet.features.tables import TableFiles, assemble, read_summary, table_files
from sppnet.files import remove_temporaries
from sppnet.locks import locked_file
from sppnet.progress import rate_bar
from sppnet.proposals import proposals_for
from sppnet.structures import ImageSize

if TYPE_CHECKING:
    from sppnet.features.extractor import FeatureExtractor

_PART_BYTES = 16 * 2**20


@dataclass(frozen=True)
class BulkResult:
    """What `write_features` wrote.

    Attributes:
        out: the file of features.
        index: what each row of it is, one JSON object per line; None for Parquet, which has it in columns.
        failed: images without features and why, one JSON object per line.
        images: images with features.
        rows: feature vectors.
        length: numbers in a feature vector.
        failures: of each image without features its path and the reason.
    """

    out: Path
    index: Path | None
    failed: Path
    images: int
    rows: int
    length: int
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Found:
    size: ImageSize
    rows: NDArray[Any]
    boxes: NDArray[Any] | None


def write_features(
    extractor: FeatureExtractor,
    images: Sequence[Path],
    out: str | os.PathLike[str],
    boxes: Mapping[str, Tensor] | None = None,
    *,
    overwrite: bool = False,
    checkpoint_seconds: float = 10.0,
    quiet: bool = False,
) -> BulkResult:
    """Write the features of images, or of boxes on them, to a file; memory does not grow with their number.

    The same call after an interruption, whenever it came, goes on where the last one ended, and leaves the
    same bytes as one without interruption. The same call after the end does nothing.

    Args:
        extractor: how features are made.
        images: paths of images; each is one row, in this order, or has one row for each of its boxes.
        out: a file that ends in ``.npy`` or ``.parquet``.
        boxes: of `sppnet.proposals.read_proposals`; whole images when None.
        overwrite: replace earlier files, and what another job left unfinished.
        checkpoint_seconds: about as much work is lost by an interruption.
        quiet: no progress bar.

    Raises:
        UserError: options at fault, files that are there already, a folder that cannot be written, or another
            process that writes to ``out``.
        MissingExtraError: a Parquet file without pyarrow.
    """
    if not checkpoint_seconds >= 0:
        raise UserError("checkpoint_seconds", "a number of at least 0", checkpoint_seconds)
    target = Path(out)
    files = table_files(target)
    with locked_file(target):
        try:
            remove_temporaries(target.parent, files.names())
            job = describe_job(extractor, images, boxes)
            store = _open_store(job, files, overwrite=overwrite)
            if not files.hold(job) or overwrite:
                store.open()
                _fill(store, extractor, images, boxes, checkpoint_seconds, quiet=quiet)
                assemble(store, job, images, files)
            store.clear()
            return BulkResult(files.data, files.index, files.failed, **read_summary(files))
        except OSError as error:
            raise UserError(target, "a file that can be written", error.strerror or error) from error


def _open_store(job: Job, files: TableFiles, *, overwrite: bool) -> PartStore:
    """The parts of the job; those of another, and files of other origin, are refused unless ``overwrite``."""
    store = PartStore(files.parts, job)
    if store.exists():
        if overwrite and not store.is_same():
            store.clear()
        store.check()
    elif not overwrite and files.exist() and not files.hold(job):
        hint = "Choose another name, or give overwrite to replace it."
        raise UserError(files.data, "a new file, or the one of the same job", "another", hint)
    return store


def _fill(
    store: PartStore,
    extractor: FeatureExtractor,
    images: Sequence[Path],
    boxes: Mapping[str, Tensor] | None,
    seconds: float,
    *,
    quiet: bool,
) -> None:
    """Compute what the store lacks, a part after every so many seconds or bytes."""

    def read(path: Path) -> tuple[Path, Pixels | UserError]:
        try:
            return path, read_pixels(path)
        except UserError as error:
            return path, error

    def compute(pair: tuple[Path, Pixels | UserError]) -> _Found | UserError:
        path, pixels = pair
        if isinstance(pixels, UserError):
            return pixels
        try:
            return _features(extractor, path, pixels, boxes)
        except UserError as error:
            return error
        except (MemoryError, torch.OutOfMemoryError):
            return UserError(path, "an image that fits into memory", " x ".join(map(str, pixels.shape[:2])))

    done = store.count()
    part = Part(done)
    with rate_bar("Features", len(images), "images", done, quiet=quiet) as advance:
        last = time.monotonic()
        for found in staged_iter(read, compute, images[done:], extractor.network_.device):
            if isinstance(found, UserError):
                part.fail(str(found))
            else:
                part.add(found.size, found.rows, found.boxes)
            advance()
            if time.monotonic() - last >= seconds or part.bytes >= _PART_BYTES:
                part = store.write(part)
                last = time.monotonic()
        if part.count:
            store.write(part)


def _features(
    extractor: FeatureExtractor, path: Path, pixels: Pixels, boxes: Mapping[str, Tensor] | None
) -> _Found:
    size = ImageSize(pixels.shape[0], pixels.shape[1])
    if boxes is None:
        return _Found(size, extractor.image(pixels)[None], None)
    own = proposals_for(boxes, path, size).boxes.xyxy
    return _Found(size, extractor.boxes(pixels, own), own.numpy())
