"""Files with the finished features of an unfinished bulk extraction."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sppnet.errors import UserError
from sppnet.features.job import Job
from sppnet.structures import ImageSize

_JOB = "job.json"


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
        """Return whether the folder has parts of an unfinished job."""
        return self.folder.exists()

    def check(self) -> None:
        """Raise `UserError` unless the parts belong to this job."""
        try:
            found: Any = json.loads((self.folder / _JOB).read_bytes())
            same = found["digest"] == self.job.digest
        except FileNotFoundError:  # interrupted before the first part
            same = not any(self.folder.glob("*.safetensors"))
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            expected = "parts of the same job: equal options, weights, images and boxes"
            hint = "Repeat the interrupted call, choose another name, or give overwrite to start over."
            raise UserError(self.folder, expected, "parts of another job", hint)

    def clear(self) -> None:
        """Remove the folder with all parts."""
        gone = self.folder.with_name(self.folder.name + ".old")
        shutil.rmtree(gone, ignore_errors=True)
        if self.folder.exists():
            # Renamed first, so that an interrupted removal leaves no incomplete list of parts.
            os.replace(self.folder, gone)
            shutil.rmtree(gone)

    def open(self) -> None:
        """Create the folder and record the job in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _JOB).exists():
            staged = self.folder / f"{_JOB}.part"
            staged.write_text(json.dumps(asdict(self.job), sort_keys=True), encoding="utf-8")
            os.replace(staged, self.folder / _JOB)

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
        path = self.folder / f"{part.first:012d}.safetensors"
        staged = path.with_suffix(".part")
        save_file(arrays, staged, facts)
        os.replace(staged, path)
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
