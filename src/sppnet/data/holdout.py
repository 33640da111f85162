"""Hold out images of a data set without splits, and record the images of a fit.

A data set without splits is divided by a seeded, stratified rule, so that the images of evaluation differ
from those of fitting.
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
"""Default held-out share of an undivided data set that is given by its path."""

_DIGITS = 16
_BACKGROUND = -1


@dataclass(frozen=True)
class FittedOn:
    """The fitted and the held-out images of a run, as digests of their content.

    Attributes:
        share: the requested held-out share; 0 if no image was held out.
        seed: seed of the division.
        trained: digests of the fitted images.
        held_out: digests of the held-out images.

    Examples:
        >>> record = FittedOn(0.2, 0, ("0123456789abcdef",), ())
        >>> FittedOn.from_dict(record.to_dict(), "model.json") == record
        True
    """

    share: float
    seed: int
    trained: tuple[str, ...]
    held_out: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the record in JSON types; digests are joined into one text."""
        return {
            "share": self.share,
            "seed": self.seed,
            "trained": "".join(self.trained),
            "held_out": "".join(self.held_out),
        }

    @staticmethod
    def from_dict(content: object, where: object) -> FittedOn | None:
        """Parse the result of `to_dict`; None, as in runs of earlier versions, gives None.

        Raises:
            UserError: the content is invalid; the message names ``where``.
        """
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise UserError(where, "a record of the fitted images", type(content).__name__)
        share, seed, *digests = (content.get(name) for name in ("share", "seed", "trained", "held_out"))
        if not isinstance(share, (int, float)) or not isinstance(seed, int) or not 0 <= share < 1:
            raise UserError(where, "a share and a seed of the held-out images", f"{share!r}, {seed!r}")
        return FittedOn(float(share), seed, *(_digests_in(text, where) for text in digests))


def hold_out(labels: Sequence[Collection[int]], share: float, seed: int) -> list[int]:
    """Choose the images to hold out: about ``share`` of the images of every class.

    Classes are processed from the rarest to the most frequent (iterative stratification). At most
    ``floor(share * n)`` of n images of a class are held out, so that no image of a small class is.

    Args:
        labels: the classes in each image; empty for an image without objects.
        share: the held-out share, at least 0 and below 1.
        seed: seed of the random choice.

    Returns:
        Indices of the held-out images, ascending.

    Raises:
        UserError: the share is out of its range.

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
    # 1e-9 compensates for the rounding of shares such as 0.2 in binary.
    remaining = {number: int(share * len(images) + 1e-9) for number, images in members.items()}
    chosen: set[int] = set()
    for number in sorted(members, key=lambda k: (len(members[k]), k)):
        for i in members[number]:
            classes = set(labels[i]) or {_BACKGROUND}
            if i not in chosen and all(remaining[k] > 0 for k in classes):
                chosen.add(i)
                for k in classes:
                    remaining[k] -= 1
    return sorted(chosen)


def check_share(share: float | None, where: str = "val_share") -> None:
    """Raise `UserError` for a share below 0 or of at least 1; None is valid."""
    if share is not None and not 0 <= share < 1:
        raise UserError(where, "a share of at least 0 and below 1", share)


def fit_share(
    data: str | os.PathLike[str] | ClassificationSet | DetectionSet,
    split: str | None,
    layout: str | None,
    val_share: float | None,
) -> float:
    """Return the share to hold out in a fit.

    It is 0 for data with splits or with a named split, else ``val_share``. If that is None, it is
    `DEFAULT_SHARE` for a path, and 0 for a data set object.

    Raises:
        UserError: the share is out of its range, or the layout of the path is unknown.
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
    """Return whether fitting and evaluation read the same images, for lack of a named split and of splits.

    Raises:
        UserError: the layout of the path is unknown.
    """
    if split is not None:
        return False
    if isinstance(data, (ClassificationSet, DetectionSet)):
        return data.split == WHOLE
    return serves_both(splits(data, layout))


def usable_images(dataset: AnySet, *, skip_bad: bool) -> AnySet:
    """Check that all images can be decoded; with ``skip_bad``, remove the damaged ones.

    Raises:
        UserError: images are damaged, and ``skip_bad`` is False or no other image remains. The message lists
            all of them.
    """
    damaged = check_images(item.path for item in dataset.items)
    if not damaged:
        return dataset
    if skip_bad:
        return drop_items(dataset, [path for path, _ in damaged])
    listed = "; ".join(f"{path}: {reason}" for path, reason in damaged)
    count = f"{len(damaged)} of {plural(len(dataset.items), 'image')} damaged: {listed}"
    hint = "Replace or remove them, or leave them out with skip_bad (--skip-bad)."
    raise UserError(dataset.root, "images that can be decoded", count, hint)


def images_to_fit(dataset: AnySet, share: float, seed: int) -> tuple[AnySet, FittedOn]:
    """Return the images to fit on, and the record of the fitted and the held-out images.

    Args:
        dataset: the images.
        share: the share to hold out.
        seed: seed of the division.
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
            "evaluation on this data will use fitted images"
        )
    items = [item for i, item in enumerate(dataset.items) if i not in held]
    return replace(dataset, items=tuple(items), notes=(*dataset.notes, note)), record


def images_to_evaluate(
    dataset: AnySet, record: FittedOn | None, *, undivided: bool
) -> tuple[AnySet, dict[str, object]]:
    """Return the images to evaluate on, and whether they were fitted on.

    These are the images that were not fitted on if the data set is undivided and has held-out images, else
    all.

    Args:
        dataset: the images.
        record: the record of the fit; None if unknown.
        undivided: the result of `is_undivided`.

    Returns:
        The data set, and a dictionary of ``"held_out"`` (whether only images that were not fitted on are
        used) and ``"trained_on"`` (number of used images that were fitted on; None if unknown).
    """
    if record is None:
        return dataset, {"held_out": False, "trained_on": None}
    trained, held_out = set(record.trained), set(record.held_out)
    digests = image_digests([item.path for item in dataset.items])
    known = [digest in trained for digest in digests]
    if undivided and held_out.intersection(digests) - trained:
        items = tuple(item for item, fitted in zip(dataset.items, known, strict=True) if not fitted)
        note = f"measured on {len(items)} held-out images; the other {sum(known)} were fitted on"
        selected = replace(dataset, items=items, notes=(*dataset.notes, note))
        return selected, {"held_out": True, "trained_on": 0}
    if any(known):
        note = f"{sum(known)} of {plural(len(known), 'measured image')} were fitted on: figures are too high"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return dataset, {"held_out": False, "trained_on": sum(known)}


def image_digests(paths: Sequence[Path]) -> list[str]:
    """Return a digest of the content of each file, 16 hexadecimal digits.

    Raises:
        UserError: a file cannot be read.
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
    """Return the classes in each image, without crowds."""
    if isinstance(dataset, ClassificationSet):
        return [{item.label} for item in dataset.items]
    return [set(item.truth.labels[~item.truth.crowd].tolist()) for item in dataset.items]


def _digests_in(text: object, where: object) -> tuple[str, ...]:
    if not isinstance(text, str) or len(text) % _DIGITS or set(text) - set("0123456789abcdef"):
        raise UserError(where, f"digests of {_DIGITS} hexadecimal digits", "another value")
    return tuple(text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS))
