"""Dense sliding windows of a few shapes, which are learned from the training boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.structures import Boxes, ImageSize

# Candidate shapes lie on a logarithmic lattice; this is the ratio of neighbouring sides.
_LATTICE = 1.15
_TOUCHES = 1.5  # pixels; boxes nearer to the border are treated as truncated
# If there are too many windows, each shape gets a share in proportion to its number of windows to this power.
# At 1 all steps grow equally, and small shapes take most of the budget; at 0 they get too few windows.
# Measured on training images, 8,000 windows: recall at IoU 0.5 on COCO and at 0.7 on BCCD is 0.28 and 0.73 at
# 1, 0.53 and 0.92 at 1/2, 0.57 and 0.93 at 0, at which one platelet in 20 was missed.
_EXPONENT = 0.5


def shapes_from_boxes(
    boxes: list[Boxes], weights: list[Tensor], *, overlap: float = 0.75, most: int = 24
) -> Tensor:
    """Choose window shapes that cover the shapes of the training boxes.

    Greedy cover: the next shape is the one that fits the largest total weight of boxes without a fit, until
    99% of the weight has one. A shape fits a box if their IoU is at least ``overlap`` when both have the
    same centre. Boxes at the border of an image belong to truncated objects and are ignored, unless there
    are no others.

    Args:
        boxes: boxes ``[N_i, 4]`` of each training image.
        weights: float ``[N_i]`` of each image, weights of the boxes.
        overlap: minimum IoU of a fit.
        most: maximum number of shapes.

    Returns:
        float32 ``[S, 2]``, heights and widths in units of the image's short side, best first.

    Raises:
        UserError: there are no boxes.

    Examples:
        >>> boxes = Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 20, 70, 70]]), ImageSize(100, 100))
        >>> shapes_from_boxes([boxes], [torch.ones(2)]).shape
        torch.Size([1, 2])
    """
    whole: list[Tensor] = []
    truncated: list[Tensor] = []
    for some, weight in zip(boxes, weights, strict=True):
        x = some.xyxy
        sides = torch.stack([x[:, 3] - x[:, 1], x[:, 2] - x[:, 0]], 1)
        weighted = torch.cat([sides / some.size.short_side, weight[:, None]], 1)
        inside = (x[:, 0] > _TOUCHES) & (x[:, 1] > _TOUCHES)
        inside &= (x[:, 2] < some.size.width - _TOUCHES) & (x[:, 3] < some.size.height - _TOUCHES)
        real = (sides >= 1).all(1)
        whole.append(weighted[inside & real])
        truncated.append(weighted[~inside & real])
    table = torch.cat(whole) if sum(map(len, whole)) else torch.cat(truncated)
    if not len(table):
        raise UserError("data", "at least one box of at least 1 x 1 pixel to learn shapes from", "none")
    sides, weight = table[:, :2].double(), table[:, 2].double()
    base = torch.tensor(_LATTICE, dtype=torch.float64).log()
    lattice = torch.unique((sides.log() / base).round(), dim=0)
    candidates = (lattice * base).exp()
    fits = _centred_iou(candidates, sides) >= overlap
    chosen: list[int] = []
    left = weight.clone()
    while len(chosen) < most and float(left.sum()) > 0.01 * float(weight.sum()):
        gain = fits.double() @ left
        best = int(gain.argmax())
        if float(gain[best]) <= 0:
            break
        chosen.append(best)
        left[fits[best]] = 0
    return candidates[chosen or [0]].float()


def _centred_iou(ours: Tensor, theirs: Tensor) -> Tensor:
    shared = torch.minimum(ours[:, None], theirs[None]).prod(2)
    return shared / (ours.prod(1)[:, None] + theirs.prod(1)[None] - shared)


def dense_windows(size: ImageSize, shapes: Tensor, *, step: float = 0.2, most: int = 10000) -> Boxes:
    """Compute sliding windows of every shape; deterministic.

    The centres cover the image with a stride of ``step`` sides. Windows are clipped to the image, so that
    truncated objects have windows too. If there are more than ``most`` windows, strides are increased, more
    for small shapes, which have the most windows, than for large ones.

    Args:
        size: size of the image.
        shapes: ``[S, 2]``, heights and widths in units of the image's short side.
        step: stride of the centres, in units of the window's sides.
        most: maximum number of windows.

    Returns:
        At most ``most`` boxes, but at least one per shape.

    Examples:
        >>> len(dense_windows(ImageSize(100, 100), torch.tensor([[0.5, 0.5]]), step=0.5))
        16
    """
    sides = shapes.double() * size.short_side
    counts = _counts(size, sides, torch.full((len(sides),), step, dtype=torch.float64))
    if int(counts.prod(1).sum()) > most:
        shares = _shares(counts.prod(1), max(most, len(shapes)))
        # Increased until the integer numbers of rows and columns fit the share.
        steps = step * (counts.prod(1) / shares).sqrt().clamp(min=1)
        while bool((over := (counts.prod(1) > shares) & (counts.amax(1) > 1)).any()):
            counts = torch.where(over[:, None], _counts(size, sides, steps), counts)
            steps = torch.where(over, steps * 1.02, steps)
    parts: list[Tensor] = []
    for (height, width), (rows, columns) in zip(sides.tolist(), counts.tolist(), strict=True):
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * size.height / rows
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * size.width / columns
        cy, cx = torch.meshgrid(y, x, indexing="ij")
        box = torch.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], 2)
        parts.append(box.reshape(-1, 4))
    return Boxes(torch.cat(parts).float(), size).clip()


def _shares(counts: Tensor, most: int) -> Tensor:
    """Distribute ``most`` windows among shapes; none gets more than its count in ``counts`` ``[S]``."""
    order = counts.argsort(stable=True)
    powers = counts[order].double().pow(_EXPONENT)
    # Suffix sums in a fixed order: a vectorised sum may round differently and change a share by one.
    weights = powers.flip(0).cumsum(0).flip(0)
    left, shares = most, torch.empty(len(counts), dtype=torch.float64)
    for i, shape in enumerate(order.tolist()):
        part = int(left * float(powers[i]) / float(weights[i]))
        shares[shape] = max(1, min(int(counts[shape]), part))
        left -= int(shares[shape])
    return shares


def _counts(size: ImageSize, sides: Tensor, steps: Tensor) -> Tensor:
    """Return the numbers of rows and columns ``[S, 2]`` of the windows of each shape."""
    span = torch.tensor([[size.height, size.width]], dtype=torch.float64)
    return (span / (sides * steps[:, None])).round().clamp(min=1).long()
