"""The union of what several networks find (section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sppnet.detect.options import DetectorOptions
from sppnet.detect.suppression import merge
from sppnet.errors import UserError
from sppnet.structures import Boxes, Detections


def combine(found: Sequence[Detections], options: DetectorOptions) -> Detections:
    """The union of what several networks found in an image, after NMS (the paper's model combination).

    Args:
        found: one a network, of the same image and classes; scores of one meaning.
        options: ``nms``, ``vote`` and ``per_class`` count.

    Raises:
        UserError: nothing to combine, or other images or classes.
    """
    if not found:
        raise UserError("found", "the detections of at least one network", "none")
    first = found[0]
    for one in found:
        if one.names != first.names or one.boxes.size != first.boxes.size:
            raise UserError("found", "detections of one image and the same classes", "others")
    place = torch.cat([one.boxes.xyxy for one in found])
    # A probability of exactly 0 or 1 in float32 still needs a finite logit.
    logit = torch.cat([one.scores for one in found]).double().logit(eps=1e-12).float()
    label = torch.cat([one.labels for one in found])
    return merge(Boxes(place, first.boxes.size), logit, label, first.names, options.post)
