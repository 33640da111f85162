"""The finished part of a bulk extraction, as files that survive the process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sppnet.errors import UserError
from sppnet.features.job import Job
from sppnet.files import make_folder, remove, remove_temporaries, write_tensors, write_text
from sppnet.structures import ImageSize

_JOB = "job.json"
_PART = re.compile(r"\d{12}\.safetensors")


class Part:
    """Features of consecutive images.

    Args:
        first: position of the first image among all.

    Attributes:
        count: images so far, failed ones included.
        bytes: of the feature vectors so far.
        positions: of the images that have features.
        sizes: height and width of each of them.
        lengths: rows of each of them.
        rows: feature vectors of each of them, ``[n, D]``.
        boxes: of each of them, ``[n, 4]``; empty where rows are whole images.
        failures: position and reason of the others.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.count = 0
        self.bytes = 0
        self.positions: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.lengths: list[int] = []
        self.rows: list[NDArray[Any]] = []
        self.boxes: list[NDArray[Any]] = []
        self.failures: list[tuple[int, str]] = []

    def add(self, size: ImageSize, rows: NDArray[Any], boxes: NDArray[Any] | None) -> None:
        """Add the rows of the next image."""
        self.positions.append(self.first + self.count)
        self.sizes.append((size.height, size.width))
        self.lengths.append(len(rows))
        self.rows.append(rows)
        if boxes is not None:
            self.boxes.append(boxes)
        self.count += 1
        self.bytes += rows.nbytes

    def fail(self, reason: str) -> None:
        """Note why the next image has no rows."""
        self.failures.append((self.first + self.count, reason))
        self.count += 1


class PartStore:
    """A folder of parts of one job.

    Args:
        folder: made by `open`.
        job: parts of another are refused.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder = folder
        self.job = job

    def exists(self) -> bool:
        """Whether a job was left unfinished here.

        Raises:
            UserError: something else than a folder is in its place.
        """
        if os.path.lexists(self.folder) and (self.folder.is_symlink() or not self.folder.is_dir()):
            raise UserError(self.folder, "a folder of parts, or none", "another file", "Choose another name.")
        return self.folder.exists()

    def is_same(self) -> bool:
        """Whether the parts are of this job."""
        try:
            found: Any = json.loads((self.folder / _JOB).read_bytes())
            return found["digest"] == self.job.digest
        except FileNotFoundError:  # interrupted before the first part
            return not any(map(_PART.fullmatch, os.listdir(self.folder)))
        except (ValueError, KeyError, TypeError):
            return False

    def check(self) -> None:
        """Raise `UserError` unless the parts are of this job."""
        if not self.is_same():
            wanted = "the parts of the same job: options, weights, images and boxes as before"
            hint = (
                "Repeat the call that was interrupted, choose another name, or give overwrite to start over."
            )
            raise UserError(self.folder, wanted, "those of another", hint)

    def clear(self) -> None:
        """Remove all parts and, where it holds nothing else, the folder.

        The last part goes first: a removal that is interrupted leaves the first parts of the job.
        """
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        remove_temporaries(self.folder)
        for path in sorted(self.folder.iterdir(), reverse=True):
            if _PART.fullmatch(path.name):
                remove(path)
        remove(self.folder / _JOB)
        with suppress(OSError):  # it holds files of the user
            self.folder.rmdir()

    def open(self) -> None:
        """Make the folder, and note in it which job it is of."""
        make_folder(self.folder)
        remove_temporaries(self.folder)
        if not (self.folder / _JOB).exists():
            write_text(self.folder / _JOB, json.dumps(asdict(self.job), sort_keys=True))

    def count(self) -> int:
        """Images of the parts that are there."""
        return max((first + count for first, count, _ in self._listed()), default=0)

    def write(self, part: Part) -> Part:
        """Keep a part; returns the next one, empty."""
        job = self.job
        arrays = {
            "rows": np.concatenate([np.empty((0, job.length), job.dtype), *part.rows]),
            "positions": np.array(part.positions, np.int64),
            "lengths": np.array(part.lengths, np.int64),
            "sizes": np.array(part.sizes, np.int64).reshape(-1, 2),
        }
        if job.boxes:
            arrays["boxes"] = np.concatenate([np.empty((0, 4), np.float32), *part.boxes])
        facts = {"first": str(part.first), "count": str(part.count), "failures": json.dumps(part.failures)}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(self.folder / f"{part.first:012d}.safetensors", tensors, facts)
        return Part(part.first + part.count)

    def parts(self, *, rows: bool = True) -> Iterator[Part]:
        """Yield the parts, in the order of their images; without feature vectors unless ``rows``."""
        for first, count, path in self._listed():
            with safe_open(path, "numpy") as stored:
                names = set(stored.keys())
                part = Part(first)
                part.count = count
                part.positions = stored.get_tensor("positions").tolist()
                part.lengths = stored.get_tensor("lengths").tolist()
                part.sizes = [(height, width) for height, width in stored.get_tensor("sizes").tolist()]
                part.rows = [stored.get_tensor("rows")] if rows else []
                part.boxes = [stored.get_tensor("boxes")] if "boxes" in names else []
                failures: list[list[Any]] = json.loads(stored.metadata()["failures"])
                part.failures = [(int(position), str(reason)) for position, reason in failures]
            yield part

    def _listed(self) -> list[tuple[int, int, Path]]:
        """First image, number of images and file of each part, as far as they follow each other."""
        listed: list[tuple[int, int, Path]] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if not _PART.fullmatch(path.name):
                continue
            try:
                with safe_open(path, "numpy") as stored:
                    facts = stored.metadata()
                first, count = int(facts["first"]), int(facts["count"])
            except (SafetensorError, KeyError, ValueError, TypeError):  # damaged: computed again
                break
            if first != sum(count for _, count, _ in listed):
                break
            listed.append((first, count, path))
        return listed
