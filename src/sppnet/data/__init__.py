"""Images and labelled folders: decoding, layouts recognised by looking, writing."""

from sppnet.data.batches import batches_of_equal_size
from sppnet.data.benchmarks import missing, read_caltech101, read_voc_labels
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
    LAYOUTS,
    Layout,
    classification_for,
    default_split,
    detection_for,
    read_classification,
    read_detection,
    recognise,
    splits,
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
    "LAYOUTS",
    "Layout",
    "IMAGE_ENDINGS",
    "PREDICTION_FORMATS",
    "ImageSource",
    "Pixels",
    "PredictionFormat",
    "ScaledImage",
    "batches_of_equal_size",
    "classification_for",
    "default_split",
    "detection_for",
    "find_images",
    "image_id_of_name",
    "image_size",
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
    "stable_source",
    "write_predictions",
    "write_voc",
]
