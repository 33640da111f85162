"""Train a Fast R-CNN head twice, with `torchvision.ops.roi_pool` and with `region_pyramid_pool` in its place.

    python examples/fast_rcnn_head.py                   # synthetic maps, seconds
    python examples/fast_rcnn_head.py --data data/bccd  # maps of the bundled network, minutes

The swap is one line: `pool_with_torchvision` and `pool_with_sppnet` below. A 1 x 1 convolution on fixed
feature maps, the pooling layer and fully connected layers for classes and boxes are trained with both, from
the same start, on the same boxes, step by step in turn, so that background load affects both equally.

`roi_pool` rounds the corners of a box to cells and includes both; `region_pyramid_pool` takes the cells whose
centres lie in the box. A box of w cells is therefore one cell wider and higher for `roi_pool`. The head is
trained on boxes for which the two rules give the same cells ("same cells"), where the losses are equal up to
rounding, and on the same boxes for both ("same boxes"), where they are close.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou, roi_pool

from sppnet.ops import region_pyramid_pool

SIDE = 7  # bins along each side of a box
STRIDE = 16  # image pixels per cell
CELL = torch.tensor([0.0, 0.0, 0.0, STRIDE, STRIDE])

Pool = Callable[[Tensor, Tensor], Tensor]


def pool_with_torchvision(maps: Tensor, boxes: Tensor) -> Tensor:
    """Pool boxes ``[K, 5]`` to ``[K, C * 49]``."""
    return roi_pool(maps, boxes, SIDE, spatial_scale=1 / STRIDE).flatten(1)


def pool_with_sppnet(maps: Tensor, boxes: Tensor) -> Tensor:
    """Pool boxes ``[K, 5]`` to ``[K, C * 49]``."""
    return region_pyramid_pool(maps, boxes, levels=(SIDE,), spatial_scale=1 / STRIDE)


def pool_cells_of_torchvision(maps: Tensor, boxes: Tensor) -> Tensor:
    """Pool the cells that `roi_pool` takes: one more to the right and below."""
    return pool_with_sppnet(maps, boxes + CELL)


@dataclass(frozen=True)
class Sample:
    """A map ``[1, C, H, W]``, boxes ``[N, 4]`` in pixels of the network's input, and their training targets.

    Attributes:
        maps: fixed feature maps.
        boxes: proposals.
        labels: ``[N]``; 0 is the background.
        deltas: ``[N, 4]``, from a proposal to its object.
    """

    maps: Tensor
    boxes: Tensor
    labels: Tensor
    deltas: Tensor


class Head(nn.Module):
    """A 1 x 1 convolution, the pooling layer, and outputs for classes and boxes."""

    def __init__(self, channels: int, classes: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.reduce = nn.Conv2d(channels, 64, 1)
        self.hidden = nn.Linear(64 * SIDE * SIDE, 256)
        self.classes = nn.Linear(256, classes + 1)
        self.boxes = nn.Linear(256, 4)

    def forward(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Map boxes ``[K, 5]`` to logits ``[K, classes + 1]`` and deltas ``[K, 4]``."""
        pooled = self.pool(self.reduce(maps), boxes)
        hidden = self.hidden(pooled).relu()
        return self.classes(hidden), self.boxes(hidden)


def synthetic_samples(count: int, seed: int = 0, classes: int = 3) -> list[Sample]:
    """Noise of 32 channels with objects: each class raises channels of its own."""
    draw = torch.Generator().manual_seed(seed)
    samples: list[Sample] = []
    for _ in range(count):
        maps = torch.randn(1, 32, 30, 40, generator=draw) * 0.5
        labels = torch.randint(1, classes + 1, (4,), generator=draw)
        corner = torch.rand(4, 2, generator=draw) * torch.tensor([26.0, 18.0]) * STRIDE
        objects = torch.cat([corner, corner + (4 + torch.rand(4, 2, generator=draw) * 6) * STRIDE], 1)
        for box, label in zip((objects / STRIDE).round().int().tolist(), labels.tolist(), strict=True):
            maps[0, label * 8 : label * 8 + 8, box[1] : box[3], box[0] : box[2]] += 1.5
        samples.append(make_sample(maps, objects, labels, draw))
    return samples


def real_samples(data: Path, count: int, seed: int = 0) -> tuple[list[Sample], int]:
    """Maps of the bundled network at stride 16, for training images with boxes."""
    from sppnet.backbones import load_backbone, prepare
    from sppnet.data import read_detection, read_image
    from sppnet.features import extract

    draw = torch.Generator().manual_seed(seed)
    dataset = read_detection(data, "train")
    network = prepare(load_backbone("builtin", layers=("stride16",)), precision="float32")
    samples: list[Sample] = []
    for item in dataset.items[:count]:
        fmap = extract(network, read_image(item.path), [480]).maps[0]
        scale = torch.tensor([fmap.scale[1], fmap.scale[0]] * 2)
        objects = item.truth.boxes.xyxy * scale
        samples.append(make_sample(fmap.values[None].float().clone(), objects, item.truth.labels + 1, draw))
    return samples, len(dataset.names)


def make_sample(maps: Tensor, objects: Tensor, labels: Tensor, draw: torch.Generator) -> Sample:
    """Draw proposals: eight near each object, and 64 anywhere."""
    limit = torch.tensor([maps.shape[3], maps.shape[2]] * 2) * float(STRIDE)
    near = objects.repeat_interleave(8, 0)
    sides = (near[:, 2:] - near[:, :2]).repeat(1, 2)
    near = near + (torch.rand(near.shape, generator=draw) - 0.5) * 0.4 * sides
    corner = torch.rand(64, 2, generator=draw) * limit[:2]
    far = torch.cat([corner, corner + 32 + torch.rand(64, 2, generator=draw) * 160], 1)
    # One cell from the right and lower border, where both rules can give the same cells.
    boxes = torch.minimum(torch.cat([near, far]).clamp(min=1), limit - 1.6 * STRIDE)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > STRIDE).all(1)]
    best, owner = box_iou(boxes, objects).max(1)
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    goal = objects[owner]
    shift = ((goal[:, :2] + goal[:, 2:]) / 2 - centre) / side
    ratio = ((goal[:, 2:] - goal[:, :2]) / side).log()
    wanted = torch.where(best >= 0.5, labels[owner], torch.zeros_like(owner))
    return Sample(maps, boxes, wanted, torch.cat([shift, ratio], 1))


def step(head: Head, optimiser: torch.optim.Optimizer, sample: Sample, index: Tensor) -> float:
    """Make one step of gradient descent on some boxes of an image, and return the loss."""
    boxes = functional.pad(sample.boxes[index], (1, 0))
    labels = sample.labels[index]
    logits, deltas = head(sample.maps, boxes)
    objects = labels > 0
    loss = functional.cross_entropy(logits, labels)
    if bool(objects.any()):
        loss = loss + functional.smooth_l1_loss(deltas[objects], sample.deltas[index][objects])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def train_both(
    samples: Sequence[Sample], classes: int, pools: tuple[Pool, Pool], steps: int, seed: int = 0
) -> dict[str, Any]:
    """Train two heads in turn, and return their losses ``[steps]`` and seconds per step."""
    heads: list[Head] = []
    for pool in pools:
        torch.manual_seed(seed)
        heads.append(Head(samples[0].maps.shape[1], classes, pool))
    optimisers = [torch.optim.SGD(head.parameters(), 0.02, 0.9) for head in heads]
    draw = torch.Generator().manual_seed(seed)
    losses: list[list[float]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for number in range(steps):
        sample = samples[number % len(samples)]
        index = torch.randperm(len(sample.boxes), generator=draw)[:128]
        for which in (0, 1) if number % 2 else (1, 0):
            before = time.perf_counter()
            losses[which].append(step(heads[which], optimisers[which], sample, index))
            seconds[which].append(time.perf_counter() - before)
    return {"losses": losses, "ms": [1000 * statistics.median(some) for some in seconds]}


def summary(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the largest and mean difference of the curves, and the ratio of the times."""
    one, other = (torch.tensor(losses) for losses in found["losses"])
    last = max(1, len(one) // 4)
    return {
        "boxes": name,
        "largest_difference": float((one - other).abs().max()),
        "mean_difference": float((one - other).abs().mean()),
        "first_loss": float(one[:last].mean()),
        "last_loss_roi_pool": float(one[-last:].mean()),
        "last_loss_sppnet": float(other[-last:].mean()),
        "ms_roi_pool": found["ms"][0],
        "ms_sppnet": found["ms"][1],
        "time_ratio": found["ms"][0] / found["ms"][1],
    }


def main(words: Sequence[str] | None = None) -> int:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="images with boxes; synthetic maps without it")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(words)
    if flags.data is None:
        samples, classes = synthetic_samples(flags.images), 3
    else:
        samples, classes = real_samples(flags.data, flags.images)
    rows = [
        summary(name, train_both(samples, classes, (pool_with_torchvision, ours), flags.steps))
        for name, ours in (("same cells", pool_cells_of_torchvision), ("same boxes", pool_with_sppnet))
    ]
    if flags.json:
        print(json.dumps({"rows": rows}, indent=2))
        return 0
    for row in rows:
        print(
            f"{row['boxes']}: loss {row['first_loss']:.3f} -> {row['last_loss_roi_pool']:.3f} with roi_pool, "
            f"{row['last_loss_sppnet']:.3f} with region_pyramid_pool; difference at most "
            f"{row['largest_difference']:.2g}, on average {row['mean_difference']:.2g}; "
            f"a step takes {row['ms_roi_pool']:.1f} and {row['ms_sppnet']:.1f} ms, "
            f"ratio {row['time_ratio']:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
