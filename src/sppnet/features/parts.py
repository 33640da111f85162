"""Files with the finished features of an unfinished bulk extraction."""

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
        first: index of the first image.

    Attributes:
        count: number of images, including failed ones.
        bytes: size of the features.
        positions: indices of the images with features.
        sizes: height and width of each of them.
        lengths: number of feature vectors of each of them.
        features: features of each of them, ``[n, D]``.
        boxes: boxes of each of them, ``[n, 4]``; empty for features of whole images.
        failures: index of each other image, with the reason.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.count = 0
        self.bytes = 0
        self.positions: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.lengths: list[int] = []
        self.features: list[NDArray[Any]] = []
        self.boxes: list[NDArray[Any]] = []
        self.failures: list[tuple[int, str]] = []

    def add(self, size: ImageSize, features: NDArray[Any], boxes: NDArray[Any] | None) -> None:
        """Add the features ``[n, D]`` of the next image and its boxes ``[n, 4]``, if any."""
        self.positions.append(self.first + self.count)
        self.sizes.append((size.height, size.width))
        self.lengths.append(len(features))
        self.features.append(features)
        if boxes is not None:
            self.boxes.append(boxes)
        self.count += 1
        self.bytes += features.nbytes

    def fail(self, reason: str) -> None:
        """Record why the next image has no features."""
        self.failures.append((self.first + self.count, reason))
        self.count += 1


class PartStore:
    """A folder of parts of one job.

    Args:
        folder: the folder, created by `open`.
        job: the job; parts of other jobs are rejected.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder = folder
        self.job = job

    def exists(self) -> bool:
        """Return whether the folder has parts of an unfinished job.

        Raises:
            UserError: the path is a file or a symbolic link.
        """
        if os.path.lexists(self.folder) and (self.folder.is_symlink() or not self.folder.is_dir()):
            raise UserError(self.folder, "a folder of parts, or none", "another file", "Choose another name.")
        return self.folder.exists()

    def is_same(self) -> bool:
        """Return whether the parts belong to this job."""
        try:
            found: Any = json.loads((self.folder / _JOB).read_bytes())
            return found["digest"] == self.job.digest
        except FileNotFoundError:  # interrupted before the first part
            return not any(map(_PART.fullmatch, os.listdir(self.folder)))
        except (ValueError, KeyError, TypeError):
            return False

    def check(self) -> None:
        """Raise `UserError` unless the parts belong to this job."""
        if not self.is_same():
            expected = "parts of the same job: equal options, weights, images and boxes"
            hint = "Repeat the interrupted call, choose another name, or give overwrite to start over."
            raise UserError(self.folder, expected, "parts of another job", hint)

    def clear(self) -> None:
        """Remove all parts, and the folder if it has no other files.

        The parts are removed from the last to the first, so that an interrupted removal leaves a valid job.
        """
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        remove_temporaries(self.folder)
        for path in sorted(self.folder.iterdir(), reverse=True):
            if _PART.fullmatch(path.name):
                remove(path)
        remove(self.folder / _JOB)
        with suppress(OSError):  # the folder has files of the user
            self.folder.rmdir()

    def open(self) -> None:
        """Create the folder and record the job in it."""
        make_folder(self.folder)
        remove_temporaries(self.folder)
        if not (self.folder / _JOB).exists():
            write_text(self.folder / _JOB, json.dumps(asdict(self.job), sort_keys=True))

    def count(self) -> int:
        """Return the number of images of all parts."""
        return max((first + count for first, count, _ in self._listed()), default=0)

    def write(self, part: Part) -> Part:
        """Write a part and return the next one, empty."""
        job = self.job
        arrays = {
            "rows": np.concatenate([np.empty((0, job.length), job.dtype), *part.features]),
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

    def parts(self, *, features: bool = True) -> Iterator[Part]:
        """Yield the parts in the order of their images, without their features unless ``features``."""
        for first, count, path in self._listed():
            with safe_open(path, "numpy") as stored:
                names = set(stored.keys())
                part = Part(first)
                part.count = count
                part.positions = stored.get_tensor("positions").tolist()
                part.lengths = stored.get_tensor("lengths").tolist()
                part.sizes = [(height, width) for height, width in stored.get_tensor("sizes").tolist()]
                part.features = [stored.get_tensor("rows")] if features else []
                part.boxes = [stored.get_tensor("boxes")] if "boxes" in names else []
                failures: list[list[Any]] = json.loads(stored.metadata()["failures"])
                part.failures = [(int(position), str(reason)) for position, reason in failures]
            yield part

    def _listed(self) -> list[tuple[int, int, Path]]:
        """List first image, number of images and file of the parts, up to the first gap or damaged file."""
        listed: list[tuple[int, int, Path]] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if not _PART.fullmatch(path.name):
                continue
            try:
                with safe_open(path, "numpy") as stored:
                    facts = stored.metadata()
                first, count = int(facts["first"]), int(facts["count"])
            except (SafetensorError, KeyError, ValueError, TypeError):  # damaged: recomputed
                break
            if first != sum(count for _, count, _ in listed):
                break
            listed.append((first, count, path))
        return listed
