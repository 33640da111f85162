"""The training samples and the held-out samples of a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sppnet.classify.network import PyramidNetwork
from sppnet.classify.samples import Sample, image_samples, object_samples
from sppnet.classify.train_options import TrainOptions
from sppnet.classify.views import ViewOptions, read_for_views, view_probabilities
from sppnet.data import (
    Division,
    FittedOn,
    classification_for,
    classification_to_fit,
    detection_to_fit,
    read_classification,
    splits,
)
from sppnet.errors import UserError


@dataclass(frozen=True)
class TrainingData:
    """The training samples of a data set.

    Attributes:
        samples: images or objects with class numbers.
        names: class names.
        fitted_on: digests of the training and the held-out images.
        notes: sentences on skipped files and classes.
    """

    samples: list[Sample]
    names: tuple[str, ...]
    fitted_on: FittedOn
    notes: list[str]


def read_training_data(
    data: str | os.PathLike[str],
    split: str | None,
    layout: str | None,
    division: Division,
    options: TrainOptions,
    *,
    skip_bad: bool,
) -> TrainingData:
    """Read the samples to train on: the objects of images with ``options.objects``, else whole images.

    Raises:
        UserError: the data are invalid.
    """
    if options.objects:
        boxes, record = detection_to_fit(data, split, layout, division, skip_bad=skip_bad)
        return TrainingData(object_samples(boxes), boxes.names, record, list(boxes.notes))
    images, record = classification_to_fit(data, split, layout, division, skip_bad=skip_bad)
    return TrainingData(image_samples(images), images.names, record, list(images.notes))


def read_held_out(
    data: str | os.PathLike[str],
    split: str | None,
    layout: str | None,
    options: TrainOptions,
    names: tuple[str, ...],
) -> HeldOut | None:
    """Read the held-out samples: those of ``split``, or of val if it exists; None without a split.

    Raises:
        UserError: the split is empty, or is given together with ``options.objects``.
    """
    if split is None:
        split = "val" if not options.objects and "val" in splits(data, layout) else None
    if split is None:
        return None
    if options.objects:
        raise UserError("held_split", "none with train.objects", split)
    dataset = classification_for(read_classification(data, split, layout), names)
    if not len(dataset):
        raise UserError("held_split", f"images in split {split!r}", "none")
    return HeldOut(image_samples(dataset), options)


class HeldOut:
    """The error on the centre crops of held-out images.

    Args:
        samples: the images.
        options: the training options, for the size of the crops.
    """

    def __init__(self, samples: Sequence[Sample], options: TrainOptions) -> None:
        self.samples = samples
        side = options.size(0, 0)
        scale = max(side, options.short_side * side // options.crop)
        self.views = ViewOptions((scale,), side, "centre", flip=False)

    def error(self, network: PyramidNetwork) -> float:
        """Return the share of the images that are classified wrongly."""
        wrong = 0
        for sample in self.samples:
            image = read_for_views(sample.path, network, self.views)
            scores = view_probabilities(network, image, self.views)
            wrong += int(scores.argmax()) != sample.label
        return wrong / len(self.samples)
