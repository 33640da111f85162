"""Tiles of large images: cropping of training images, detection in each tile, and merging.

The module is independent of the detector: fitting uses a data set of tiles, and prediction a function that
returns the detections of a tile. Each tile is processed as an image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sppnet.data import Pixels, pixels_to_image, read_pixels
from sppnet.errors import UserError
from sppnet.ops.boxes import ioa, iou
from sppnet.progress import track
from sppnet.structures import Boxes, DetectionItem, Detections, DetectionSet, GroundTruth, ImageSize

# Minimum visible fraction of a truncated object; below it the object is marked difficult.
_VISIBLE = 0.5
# Minimum visible fraction of a difficult object; below it the object is background.
_TRACE = 0.1
# Minimum IoA of detections of the same object in different tiles.
_SAME_IOA = 0.7
# Maximum distance of truncated detections from the inner edge of a tile, in pixels.
_EDGE = 3.0


@dataclass(frozen=True)
class Tiling:
    """Options of tiles.

    Attributes:
        tile: maximum side of a tile in pixels; 0 for no tiles.
        overlap: overlap of neighbouring tiles as a fraction of their side, 0 to 0.9; objects up to this size
            are complete in at least one tile.
    """

    tile: int
    overlap: float = 0.2

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range."""
        if self.tile < 32:
            raise UserError("tile", "0 for none, or at least 32 pixels", self.tile)
        if not 0 <= self.overlap <= 0.9:
            raise UserError("overlap", "a fraction from 0 to 0.9", self.overlap)

    def windows(self, size: ImageSize) -> Boxes:
        """Compute the tiles of an image, in rows; they have equal sizes and cover the image evenly.

        Examples:
            >>> Tiling(60, 0.5).windows(ImageSize(50, 100)).xyxy.tolist()
            [[0.0, 0.0, 60.0, 50.0], [20.0, 0.0, 80.0, 50.0], [40.0, 0.0, 100.0, 50.0]]
        """
        rows = [[x0, y0, x1, y1] for y0, y1 in self._spans(size.height) for x0, x1 in self._spans(size.width)]
        return Boxes(torch.tensor(rows, dtype=torch.float32), size)

    def _spans(self, length: int) -> list[tuple[int, int]]:
        if length <= self.tile:
            return [(0, length)]
        step = max(1, self.tile - round(self.tile * self.overlap))
        last = -(-(length - self.tile) // step)
        return [
            (i * (length - self.tile) // last, i * (length - self.tile) // last + self.tile)
            for i in range(last + 1)
        ]


def cut_truth(truth: GroundTruth, window: Tensor) -> GroundTruth:
    """Return the objects in a tile, clipped to it, in pixels of the tile.

    An object of which less than half is visible becomes difficult, so that it is neither a positive nor a
    negative. An object of which less than a tenth is visible is removed.

    Args:
        truth: objects of the image.
        window: the tile, ``[4]``.
    """
    x0, y0, x1, y1 = window.tolist()
    size = ImageSize(int(y1 - y0), int(x1 - x0))
    share = ioa(truth.boxes.xyxy, window[None])[:, 0]
    kept = truth[share >= _TRACE]
    xyxy = kept.boxes.xyxy - window[[0, 1, 0, 1]]
    cut = share[share >= _TRACE] < _VISIBLE
    return GroundTruth(Boxes(xyxy, size).clip(), kept.labels, kept.names, kept.difficult | cut, kept.crowd)


@contextmanager
def tiled_set(
    dataset: DetectionSet, tiling: Tiling, seed: int = 0, *, quiet: bool = False
) -> Generator[DetectionSet]:
    """Create a data set of the tiles of a data set, whose images are temporary files.

    All tiles with objects are used, and an equal number of random tiles without objects. Images that fit into
    one tile are unchanged. The files are removed at the end of the context.

    Args:
        dataset: images with boxes.
        tiling: the tiles.
        seed: seed of the selection of tiles without objects.
        quiet: hide the progress bar.

    Yields:
        The data set of tiles.

    Raises:
        UserError: an image cannot be read.
    """
    tiling.check()
    items = list(dataset.items)
    windows = [tiling.windows(item.truth.boxes.size) for item in items]
    truths = [
        [cut_truth(item.truth, one) for one in some.xyxy] for item, some in zip(items, windows, strict=True)
    ]
    chosen = _chosen_tiles(truths, seed)
    with tempfile.TemporaryDirectory(prefix="sppnet-tiles-") as folder:
        found: list[DetectionItem] = []
        for number, item in enumerate(track(items, "Tiles", quiet=quiet)):
            if len(windows[number]) == 1:
                found.append(item)
            elif chosen[number]:
                found += _cut_item(
                    item, windows[number], truths[number], chosen[number], Path(folder, str(number))
                )
        yield replace(dataset, items=tuple(found))


def _chosen_tiles(truths: Sequence[Sequence[GroundTruth]], seed: int) -> list[list[int]]:
    """Select tiles of each image."""
    empty = [(i, j) for i, some in enumerate(truths) for j, truth in enumerate(some) if not len(truth)]
    count = sum(map(len, truths)) - len(empty)
    order = torch.randperm(len(empty), generator=torch.Generator().manual_seed(seed))
    left_out = {empty[i] for i in order[max(1, count) :].tolist()}
    return [[j for j in range(len(some)) if (i, j) not in left_out] for i, some in enumerate(truths)]


def _cut_item(
    item: DetectionItem, windows: Boxes, truths: Sequence[GroundTruth], chosen: Sequence[int], folder: Path
) -> Iterator[DetectionItem]:
    pixels = read_pixels(item.path)
    folder.mkdir()
    for j in chosen:
        x0, y0, x1, y1 = (int(v) for v in windows.xyxy[j].tolist())
        path = folder / f"{item.path.stem[:80]}-{x0}-{y0}.png"
        # Compression is low, because the file is temporary.
        Image.fromarray(pixels[y0:y1, x0:x1]).save(path, compress_level=1)
        yield replace(item, path=path, key=f"{item.key}-{x0}-{y0}", truth=truths[j])


def detect_in_tiles(
    pixels: Pixels, tiling: Tiling, detect: Callable[[Tensor], Detections], nms: float
) -> Detections:
    """Detect in every tile of an image and merge.

    Args:
        pixels: uint8 ``[H, W, 3]``, RGB; one tile at a time is converted to float.
        tiling: the tiles.
        detect: function that returns the detections of an image ``[3, h, w]``.
        nms: as for `merge_tiles`.

    Returns:
        The detections, best first.
    """
    windows = tiling.windows(ImageSize(pixels.shape[0], pixels.shape[1]))
    found: list[Detections] = []
    for x0, y0, x1, y1 in windows.xyxy.int().tolist():
        found.append(detect(pixels_to_image(pixels[y0:y1, x0:x1])))
    return merge_tiles(found, windows, nms)


def merge_tiles(found: Sequence[Detections], windows: Boxes, nms: float) -> Detections:
    """Merge the detections of tiles by class-wise suppression between tiles.

    Of two detections of a class from different tiles, one is removed if their IoU is above ``nms``, or if
    most of one is inside the other: the one at the inner edge of its tile, which may be truncated, or else
    the one with the lower score.

    Args:
        found: detections of each tile, in its pixels; at least one tile.
        windows: the tiles.
        nms: maximum IoU of two detections of a class.

    Returns:
        The detections in pixels of the image, best first.
    """
    shifts = windows.xyxy[:, [0, 1, 0, 1]]
    boxes = torch.cat([one.boxes.xyxy + shift for one, shift in zip(found, shifts, strict=True)])
    scores = torch.cat([one.scores for one in found])
    labels = torch.cat([one.labels for one in found])
    owner = torch.arange(len(found)).repeat_interleave(torch.tensor([len(one) for one in found]))
    cut = _at_inner_edges(boxes, windows, owner)
    kept: list[Tensor] = []
    for label in labels.unique().tolist():
        mine = (labels == label).nonzero()[:, 0]
        order = torch.sort(scores[mine] - 2 * cut[mine].float(), descending=True, stable=True).indices
        kept.append(_suppressed(mine[order], boxes, owner, nms))
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *kept])
    index = index[torch.sort(scores[index], descending=True, stable=True).indices]
    return Detections(Boxes(boxes[index], windows.size), scores[index], labels[index], found[0].names)


def _at_inner_edges(boxes: Tensor, windows: Boxes, owner: Tensor) -> Tensor:
    """Return whether each box reaches a side of its tile that is not a side of the image."""
    tile = windows.xyxy[owner]
    limit = tile.new_tensor([windows.size.width, windows.size.height])
    low = (boxes[:, :2] < tile[:, :2] + _EDGE) & (tile[:, :2] > 0)
    high = (boxes[:, 2:] > tile[:, 2:] - _EDGE) & (tile[:, 2:] < limit)
    return (low | high).any(1)


def _suppressed(order: Tensor, boxes: Tensor, owner: Tensor, nms: float) -> Tensor:
    """Suppress detections, in ``order``, by earlier remaining detections of other tiles."""
    kept = torch.zeros(0, dtype=torch.int64)
    for one in order.split(1):
        others = boxes[kept[owner[kept] != owner[one]]]
        overlaps = iou(boxes[one], others)[0]
        inside = torch.maximum(ioa(boxes[one], others)[0], ioa(others, boxes[one])[:, 0])
        if not bool(((overlaps > nms) | (inside > _SAME_IOA)).any()):
            kept = torch.cat([kept, one])
    return kept
