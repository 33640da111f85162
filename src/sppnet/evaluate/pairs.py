"""Validation of detections and ground truth of the same images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sppnet.errors import UserError
from sppnet.structures import Detections, GroundTruth


def paired_names(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> tuple[str, ...]:
    """Validate detections and ground truth and return their class names.

    Args:
        detections: one per image.
        truths: the objects of the same images.

    Raises:
        UserError: there are no images, the sequences differ in length, there are no class names, names
            differ or are not unique, or a score is not finite. It names the first invalid image.
    """
    if len(detections) != len(truths):
        raise UserError("detections", f"one entry per image, {len(truths)} as in truths", len(detections))
    if not truths:
        raise UserError("truths", "at least one image", "none")
    names = tuple(truths[0].names)
    if not names or len(set(names)) != len(names):
        raise UserError("truths[0].names", "one or more unique names", names)
    for number, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for where, got in (("truths", truth.names), ("detections", found.names)):
            if tuple(got) != names:
                raise UserError(
                    f"{where}[{number}].names",
                    f"the names of truths[0], {names}",
                    got,
                    "All images must have the same class names in the same order.",
                )
        if not bool(torch.isfinite(found.scores).all()):
            raise UserError(f"detections[{number}].scores", "finite scores", "a NaN or an infinity")
    return names
