"""Model combination: the union of the detections of several networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sppnet.detect.options import DetectorOptions
from sppnet.detect.suppression import merge
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections


def combine(found: Sequence[Detections], options: DetectorOptions) -> Detections:
    """Combine the detections of several networks by NMS of their union (He et al. 2015, section 4.4).

    Args:
        found: the detections of each network, of the same image and classes, with comparable scores.
        options: ``nms``, ``vote`` and ``per_class`` are used.

    Returns:
        The detections, best first.

    Raises:
        UserError: there are no detections, or they belong to other images or classes.

    Examples:
        >>> import torch
        >>> from sppnet.structures import Boxes, ImageSize
        >>> box = Boxes(torch.tensor([[10.0, 10, 60, 60]]), ImageSize(100, 100))
        >>> one, two = (Detections(box, torch.tensor([s]), torch.tensor([0]), ("cat",)) for s in (0.9, 0.8))
        >>> len(combine([one, two], DetectorOptions()))
        1
    """
    if not found:
        raise UserError("found", "the detections of at least one network", "none")
    first = found[0]
    for one in found:
        if one.names != first.names or one.boxes.size != first.boxes.size:
            raise UserError("found", "detections of one image and the same classes", "others")
    place = torch.cat([one.boxes.xyxy for one in found])
    # Probabilities of exactly 0 or 1 in float32 are clamped, so that logits are finite.
    logit = torch.cat([one.scores for one in found]).double().logit(eps=1e-12).float()
    label = torch.cat([one.labels for one in found])
    return merge(Boxes(place, first.boxes.size), logit, label, first.names, options.post)
