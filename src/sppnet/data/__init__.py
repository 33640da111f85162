"""Decode images, read labelled data sets of several layouts, and write data sets and predictions."""

from sppnet.data.batches import batches_of_equal_size
from sppnet.data.benchmarks import missing, read_caltech101, read_voc_labels
from sppnet.data.changes import classification_for, detection_for, drop_items, without_empty_classes
from sppnet.data.checks import check_images
from sppnet.data.holdout import FittedOn, hold_out
from sppnet.data.images import (
    IMAGE_ENDINGS,
    ImageSource,
    Pixels,
    ScaledImage,
    find_images,
    image_size,
    pixels_to_image,
    read_image,
    read_pixels,
    read_scaled,
    stable_source,
)
from sppnet.data.layouts import (
    default_split,
    layout_names,
    read_classification,
    read_detection,
    recognise,
    splits,
)
from sppnet.data.prepare import (
    Division,
    classification_to_fit,
    classification_to_measure,
    detection_to_fit,
    detection_to_measure,
)
from sppnet.data.writers import (
    PREDICTION_FORMATS,
    PredictionFormat,
    image_id_of_name,
    read_csv_text,
    write_predictions,
    write_voc,
)

__all__ = [
    "detection_to_measure",
    "detection_to_fit",
    "classification_to_measure",
    "classification_to_fit",
    "Division",
    "hold_out",
    "FittedOn",
    "IMAGE_ENDINGS",
    "PREDICTION_FORMATS",
    "ImageSource",
    "Pixels",
    "PredictionFormat",
    "ScaledImage",
    "batches_of_equal_size",
    "check_images",
    "classification_for",
    "default_split",
    "detection_for",
    "drop_items",
    "find_images",
    "image_id_of_name",
    "image_size",
    "layout_names",
    "missing",
    "pixels_to_image",
    "read_caltech101",
    "read_classification",
    "read_csv_text",
    "read_detection",
    "read_image",
    "read_pixels",
    "read_scaled",
    "read_voc_labels",
    "recognise",
    "splits",
    "without_empty_classes",
    "stable_source",
    "write_predictions",
    "write_voc",
]
