"""The proposals of a list of images, computed on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from sppnet.config import as_config
from sppnet.detect.feature_options import WindowOptions
from sppnet.detect.images import Image
from sppnet.errors import UserError
from sppnet.features.keys import file_key, key_of
from sppnet.features.store import StageStore
from sppnet.proposals import Cached, ProposalSource, read_proposals, shapes_from_boxes
from sppnet.structures import Boxes, DetectionSet, GroundTruth, ImageSize

_SIZES = 8  # number of image sizes whose dense windows are cached


def learn_shapes(dataset: DetectionSet, most: int) -> Tensor:
    """Learn window shapes ``[S, 2]`` from all boxes; classes have equal total weights.

    Raises:
        UserError: there are no objects.
    """
    counts = torch.zeros(len(dataset.names))
    for item in dataset.items:
        counts += torch.bincount(item.truth.labels, minlength=len(counts))
    if not counts.any():
        raise UserError(dataset.root, "annotated objects to learn from", "images without any")
    share = 1 / counts.clamp(min=1)
    items = [item.truth for item in dataset.items]
    return shapes_from_boxes([t.boxes for t in items], [share[t.labels] for t in items], most=most)


def make_source(options: WindowOptions, shapes: Tensor, *, required: bool = True) -> ProposalSource:
    """Create the source of proposals for some options.

    Args:
        options: options of the proposals.
        shapes: shapes of dense windows, ``[S, 2]``.
        required: raise if the file of proposals is missing; otherwise images have no proposals.

    Raises:
        UserError: the file of proposals is missing or damaged.
    """
    table = None
    if options.proposals is not None:
        missing = not required and not options.proposals.exists()
        table = {} if missing else read_proposals(options.proposals)
    return ProposalSource(
        options.source, options.windows, options.window_step, shapes, table, options.edge_model
    )


class ImageWindows(Sequence[Boxes]):
    """The proposals of images, preceded by the boxes of objects, if given.

    Memory does not grow with the number of images: dense windows are computed on demand, and the results of
    searches are cached in the store.

    Args:
        images: the images.
        source: source of the proposals.
        options: options of the proposals, part of the key of cached ones.
        store: cache of selective search and EdgeBoxes; None to search again.
        truths: objects of each image, whose boxes come first; None for prediction.
    """

    def __init__(
        self,
        images: Sequence[Image],
        source: ProposalSource,
        options: WindowOptions,
        store: StageStore | None = None,
        truths: Sequence[GroundTruth] | None = None,
    ) -> None:
        self.images = images
        self.source = source
        self.options = options
        self.store = store
        self.truths = truths
        self._model = "" if options.edge_model is None else file_key(options.edge_model)
        self._by_size: dict[ImageSize, Boxes] = {}

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, i: int) -> Boxes: ...
    @overload
    def __getitem__(self, i: slice) -> list[Boxes]: ...
    def __getitem__(self, i: int | slice) -> Boxes | list[Boxes]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        found = self._found(self.images[i])
        if self.images[i].flipped:
            found = found.flipped()
        if self.truths is None:
            return found
        return Boxes(torch.cat([self.truths[i].boxes.clip().xyxy, found.xyxy]), found.size)

    def proposed(self, i: int) -> Boxes:
        """Return the proposals of image i without the boxes of objects."""
        return self[i] if self.truths is None else self[i][len(self.truths[i]) :]

    def _found(self, image: Image) -> Boxes:
        if not self.source.depends_on_size:
            return self.source.boxes(image.size, image.path, image.read_plain, self._cached(image))
        if image.size not in self._by_size:
            if len(self._by_size) >= _SIZES:
                self._by_size.pop(next(iter(self._by_size)))
            self._by_size[image.size] = self.source.boxes(image.size)
        return self._by_size[image.size]

    def _cached(self, image: Image) -> Cached | None:
        if self.store is None or not image.key:
            return None
        store, key = self.store, key_of("windows", image.key, as_config(self.options), self._model)
        return lambda make: store.get("windows", key, make)
