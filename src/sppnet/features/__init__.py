"""Feature maps of images, regions of boxes, and feature vectors of fixed length."""

from sppnet.features.cells import TARGET_AREA, cells, choose_scale
from sppnet.features.extract import extract, extract_batch, resize, resized_size
from sppnet.features.pool import image_rows, iter_rows, pool_rows, row_length, score_rows

__all__ = [
    "TARGET_AREA",
    "cells",
    "choose_scale",
    "extract",
    "extract_batch",
    "image_rows",
    "iter_rows",
    "pool_rows",
    "resize",
    "resized_size",
    "row_length",
    "score_rows",
]
