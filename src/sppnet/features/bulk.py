"""Features of many images into one file; an interrupted run is resumed.

Features of finished images are stored as *parts* in ``OUT.parts/``, from which the file is assembled at the
end. A part is written atomically, so that the folder is valid whenever the process ends. The assembled files
do not depend on the boundaries of the parts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor

from sppnet.data import Pixels, read_pixels
from sppnet.errors import UserError, memory_errors
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
    """The files that `write_features` wrote, with counts.

    Attributes:
        out: the file of features.
        index: image and box of each feature vector, one JSON object per line; None for Parquet.
        failed: images without features and the reasons, one JSON object per line.
        images: number of images with features.
        rows: number of feature vectors.
        length: ``D``, length of a feature vector.
        failures: path and reason of each image without features.
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
    features: NDArray[Any]
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
    """Write the features of images, or of boxes on them, to a file, with bounded memory.

    After an interruption, the same call resumes the job and writes the same bytes as an uninterrupted one.
    After completion, the same call does nothing.

    Args:
        extractor: computes the features.
        images: paths of images; each gives one feature vector, in this order, or one per box.
        out: a file that ends in ``.npy`` or ``.parquet``.
        boxes: boxes by image, from `sppnet.proposals.read_proposals`; None for whole images.
        overwrite: replace existing files and unfinished parts of another job.
        checkpoint_seconds: interval between parts; an interruption loses about this much work.
        quiet: hide the progress bar.

    Returns:
        The files and the counts.

    Raises:
        UserError: an option is invalid, the files exist already, the folder is not writable, or another
            process writes to ``out``.
        MissingExtraError: pyarrow, needed for a Parquet file, is not installed.
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
    """Return the parts of the job; reject those of another job, and other files, unless ``overwrite``."""
    store = PartStore(files.parts, job)
    if store.exists():
        if overwrite and not store.is_same():
            store.clear()
        store.check()
    elif not overwrite and files.exist() and not files.hold(job):
        hint = "Choose another name, or give overwrite to replace it."
        raise UserError(files.data, "a new file, or one of the same job", "a file of another job", hint)
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
    """Compute the missing features; write a part after ``seconds`` or a limit of bytes."""

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
            with memory_errors():
                return _features(extractor, path, pixels, boxes)
        except UserError as error:
            return error
        except MemoryError:
            return UserError(path, "an image that fits into memory", " x ".join(map(str, pixels.shape[:2])))

    done = store.count()
    part = Part(done)
    with rate_bar("Features", len(images), "images", done, quiet=quiet) as advance:
        last = time.monotonic()
        for found in staged_iter(read, compute, images[done:], extractor.network_.device):
            if isinstance(found, UserError):
                part.fail(str(found))
            else:
                part.add(found.size, found.features, found.boxes)
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
