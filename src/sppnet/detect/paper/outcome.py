"""From scores of windows to detections (paper section 3.6), and two networks together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sppnet.detect.paper.options import PaperOptions
from sppnet.detect.paper.regress import BoxModel
from sppnet.errors import UserError
from sppnet.ops.boxes import nms
from sppnet.structures import Boxes, Detections


def to_detections(
    windows: Boxes,
    scores: Tensor,
    rows: Callable[[Tensor], Tensor],
    boxes: BoxModel | None,
    names: tuple[str, ...],
    options: PaperOptions,
) -> Detections:
    """NMS, regression, clipping, NMS again, class by class.

    Args:
        windows: N windows of an image.
        scores: margins ``[N, K]``.
        rows: gives the pooled rows of windows by their positions; asked for what NMS left only.
        boxes: the regressors; None leaves windows as they are.
        names: K class names.
        options: score_above, nms and per_class count.

    Returns:
        The detections, best first; a score is the logistic function of the margin.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(len(names)):
        index = (scores[:, number] > options.score_above).nonzero()[:, 0]
        margin = scores[index, number]
        kept = nms(windows.xyxy[index], margin, options.nms)[: options.per_class]
        place, margin, index = windows[index[kept]], margin[kept], index[kept]
        if boxes is not None and len(index):
            place = boxes(rows(index), place, number)
            again = nms(place.xyxy, margin, options.nms)
            place, margin = place[again], margin[again]
        parts.append((place.xyxy, margin, torch.full((len(margin),), number)))
    return _sorted(parts, windows, names)


def combine(found: Sequence[Detections], options: PaperOptions) -> Detections:
    """The union of what several networks found in an image, after NMS (the paper's model combination).

    Args:
        found: one a network, of the same image and classes; scores of one meaning.
        options: nms and per_class count.

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
    probability = torch.cat([one.scores for one in found]).double().logit(eps=1e-12)
    label = torch.cat([one.labels for one in found])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(len(first.names)):
        mine = (label == number).nonzero()[:, 0]
        kept = mine[nms(place[mine], probability[mine].float(), options.nms)[: options.per_class]]
        parts.append((place[kept], probability[kept], label[kept]))
    return _sorted(parts, first.boxes, first.names)


def _sorted(
    parts: Sequence[tuple[Tensor, Tensor, Tensor]], boxes: Boxes, names: tuple[str, ...]
) -> Detections:
    place, margin, label = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.sort(margin, descending=True, stable=True).indices
    probability = torch.sigmoid(margin[order].double()).float()
    return Detections(Boxes(place[order].float(), boxes.size), probability, label[order], names)
