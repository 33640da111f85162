"""Detections and truths that belong together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sppnet.errors import UserError
from sppnet.structures import Detections, GroundTruth


def paired_names(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> tuple[str, ...]:
    """The class names that all images share.

    Raises:
        UserError: no images, sequences of different lengths, no class names, names that differ or repeat,
            or a score that is not finite; it names the first offending image.
    """
    if len(detections) != len(truths):
        raise UserError("detections", f"one for each of the {len(truths)} truths", len(detections))
    if not truths:
        raise UserError("truths", "at least one image", "none")
    names = tuple(truths[0].names)
    if not names or len(set(names)) != len(names):
        raise UserError("truths[0].names", "one name or more, each a different one", names)
    for number, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for where, got in (("truths", truth.names), ("detections", found.names)):
            if tuple(got) != names:
                raise UserError(
                    f"{where}[{number}].names",
                    f"those of truths[0], {names}",
                    got,
                    "Class numbers mean one thing only where the names are the same, in the same order",
                )
        if not bool(torch.isfinite(found.scores).all()):
            raise UserError(f"detections[{number}].scores", "finite scores", "NaN or infinity")
    return names
