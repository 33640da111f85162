"""Which images of an undivided data set are held out from fitting, and which ones a run was fitted on.

A data set with splits keeps them. One without is divided by a seeded, stratified rule, so that its evaluation
does not measure images that were fitted on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from sppnet.data.changes import drop_items
from sppnet.data.checks import check_images
from sppnet.data.layouts import splits
from sppnet.data.splits import WHOLE, serves_both
from sppnet.errors import UserError
from sppnet.inputs.words import plural
from sppnet.structures import ClassificationSet, DetectionSet

AnySet = TypeVar("AnySet", ClassificationSet, DetectionSet)

DEFAULT_SHARE = 0.2
"""The share that is held out of an undivided data set that is given by its path."""

_DIGITS = 16
_BACKGROUND = -1


@dataclass(frozen=True)
class FittedOn:
    """The images that a run was fitted on, and those that were held out, by digests of their content.

    Attributes:
        share: the share that was asked for; 0 where nothing was held out.
        seed: of the division.
        trained: one digest per image.
        held_out: the same of the images that were held out.
    """

    share: float
    seed: int
    trained: tuple[str, ...]
    held_out: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """As JSON takes it; digests are joined to one text."""
        return {
            "share": self.share,
            "seed": self.seed,
            "trained": "".join(self.trained),
            "held_out": "".join(self.held_out),
        }

    @staticmethod
    def from_dict(content: object, where: object) -> FittedOn | None:
        """From what `to_dict` gave; None from None, as older runs have no record.

        Raises:
            UserError: other content; it names ``where``.
        """
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise UserError(where, "a record of the images fitted on", type(content).__name__)
        share, seed, *parts = (content.get(name) for name in ("share", "seed", "trained", "held_out"))
        if not isinstance(share, (int, float)) or not isinstance(seed, int) or not 0 <= share < 1:
            raise UserError(where, "a share and a seed of the held-out images", f"{share!r}, {seed!r}")
        return FittedOn(float(share), seed, *(_digests_in(part, where) for part in parts))


def hold_out(labels: Sequence[Collection[int]], share: float, seed: int) -> list[int]:
    """Choose the images to hold out: about ``share`` of the images of every class.

    The rarest class comes first (iterative stratification). Of n images of a class at most
    ``floor(share * n)`` are held out, so a class of few images stays whole for fitting.

    Args:
        labels: the classes that each image shows; none for an image without objects.
        share: 0 up to but not including 1.
        seed: of the choice.

    Returns:
        Positions, ascending.

    Raises:
        UserError: a share out of its range.

    Examples:
        >>> labels = [[0]] * 10 + [[0, 1]] * 10 + [[2]] * 4
        >>> chosen = hold_out(labels, 0.2, seed=0)
        >>> [sum(k in labels[i] for i in chosen) for k in range(3)]
        [4, 2, 0]
    """
    check_share(share)
    members: dict[int, list[int]] = {}
    for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist():
        for number in set(labels[i]) or {_BACKGROUND}:
            members.setdefault(number, []).append(i)
    # A tiny excess makes up for shares such as 0.2, which are not exact in binary.
    room = {number: int(share * len(images) + 1e-9) for number, images in members.items()}
    chosen: set[int] = set()
    for number in sorted(members, key=lambda k: (len(members[k]), k)):
        for i in members[number]:
            shown = set(labels[i]) or {_BACKGROUND}
            if i not in chosen and all(room[k] > 0 for k in shown):
                chosen.add(i)
                for k in shown:
                    room[k] -= 1
    return sorted(chosen)


def check_share(share: float | None, where: str = "val_share") -> None:
    """Raise `UserError` for a share out of 0..1; None means the default."""
    if share is not None and not 0 <= share < 1:
        raise UserError(where, "a share of at least 0 and below 1", share)


def fit_share(
    data: str | os.PathLike[str] | ClassificationSet | DetectionSet,
    split: str | None,
    layout: str | None,
    val_share: float | None,
) -> float:
    """The share to hold out in a fit.

    Data with splits, and fits on a named split, hold nothing out. Otherwise ``val_share`` counts; where it is
    None, `DEFAULT_SHARE` for a path, and nothing for a data set object, of which all images are fitted on.

    Raises:
        UserError: a share out of its range, or a path whose layout is not recognised.
    """
    check_share(val_share)
    if not is_undivided(data, split, layout):
        return 0.0
    if val_share is not None:
        return val_share
    return 0.0 if isinstance(data, (ClassificationSet, DetectionSet)) else DEFAULT_SHARE


def is_undivided(
    data: str | os.PathLike[str] | ClassificationSet | DetectionSet,
    split: str | None,
    layout: str | None = None,
) -> bool:
    """Whether fitting and evaluation read the same images: no split is named, and the data set has none.

    Raises:
        UserError: a path whose layout is not recognised.
    """
    if split is not None:
        return False
    if isinstance(data, (ClassificationSet, DetectionSet)):
        return data.split == WHOLE
    return serves_both(splits(data, layout))


def usable_images(dataset: AnySet, *, skip_bad: bool) -> AnySet:
    """The data set if all its images can be decoded; with ``skip_bad``, without the damaged ones.

    Raises:
        UserError: damaged images, all of them listed; or no other image.
    """
    damaged = check_images(item.path for item in dataset.items)
    if not damaged:
        return dataset
    if skip_bad:
        return drop_items(dataset, [path for path, _ in damaged])
    listed = "; ".join(f"{path}: {reason}" for path, reason in damaged)
    count = f"{len(damaged)} of {plural(len(dataset.items), 'image')} damaged: {listed}"
    todo = "Replace or remove them, or leave them out with skip_bad (--skip-bad)."
    raise UserError(dataset.root, "images that can be decoded", count, todo)


def part_to_fit(dataset: AnySet, share: float, seed: int) -> tuple[AnySet, FittedOn]:
    """The images to fit on, and the record of them and of those that are held out.

    Args:
        dataset: the images.
        share: to hold out; 0 holds nothing out.
        seed: of the division.
    """
    digests = image_digests([item.path for item in dataset.items])
    held = set(hold_out(_labels(dataset), share, seed)) if share else set[int]()
    trained = tuple(digest for i, digest in enumerate(digests) if i not in held)
    record = FittedOn(share, seed, trained, tuple(digests[i] for i in sorted(held)))
    if not share:
        return dataset, record
    if held:
        note = f"{len(held)} of {plural(len(digests), 'image')} held out for evaluation"
    else:
        note = (
            f"no image held out for evaluation: every class has too few for a share of {share:g}; "
            "figures on this data will be those of images fitted on"
        )
    items = [item for i, item in enumerate(dataset.items) if i not in held]
    return replace(dataset, items=tuple(items), notes=(*dataset.notes, note)), record


def part_to_measure(
    dataset: AnySet, record: FittedOn | None, *, undivided: bool
) -> tuple[AnySet, dict[str, object]]:
    """The images to evaluate on, and what is known of them.

    Of an undivided data set with held-out images, the images that were not fitted on. Otherwise all.

    Args:
        dataset: the images.
        record: what the run was fitted on; None where this is not known.
        undivided: what `is_undivided` says of the data.

    Returns:
        The data set, and ``"held_out"`` (whether only images that were not fitted on are measured) and
        ``"trained_on"`` (how many of the measured images were fitted on; None where this is not known).
    """
    if record is None:
        return dataset, {"held_out": False, "trained_on": None}
    trained, held_out = set(record.trained), set(record.held_out)
    digests = image_digests([item.path for item in dataset.items])
    known = [digest in trained for digest in digests]
    if undivided and held_out.intersection(digests) - trained:
        items = tuple(item for item, seen in zip(dataset.items, known, strict=True) if not seen)
        note = f"measured on {len(items)} held-out images; the other {sum(known)} were fitted on"
        changed = replace(dataset, items=items, notes=(*dataset.notes, note))
        return changed, {"held_out": True, "trained_on": 0}
    if any(known):
        note = f"{sum(known)} of {plural(len(known), 'measured image')} were fitted on: figures are too high"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return dataset, {"held_out": False, "trained_on": sum(known)}


def image_digests(paths: Sequence[Path]) -> list[str]:
    """A digest of each file's content, 16 hexadecimal digits.

    Raises:
        UserError: a file that cannot be read.
    """
    found: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=_DIGITS // 2))
        except OSError as error:
            raise UserError(path, "a readable image", error.strerror or error) from error
        found.append(digest.hexdigest())
    return found


def _labels(dataset: ClassificationSet | DetectionSet) -> list[set[int]]:
    """The classes that each image shows; crowds do not count."""
    if isinstance(dataset, ClassificationSet):
        return [{item.label} for item in dataset.items]
    return [set(item.truth.labels[~item.truth.crowd].tolist()) for item in dataset.items]


def _digests_in(text: object, where: object) -> tuple[str, ...]:
    if not isinstance(text, str) or len(text) % _DIGITS or set(text) - set("0123456789abcdef"):
        raise UserError(where, f"digests of {_DIGITS} hexadecimal digits", "another value")
    return tuple(text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS))
