"""EdgeBoxes by OpenCV."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import MissingExtraError, UserError
from sppnet.structures import Boxes, ImageSize, Proposals


def edge_boxes(image: Tensor, model: Path, most: int = 2000) -> Proposals:
    """Return the proposals of EdgeBoxes, best first, in about 0.2 s per image (He et al. 2015, section 4.3).

    Args:
        image: float ``[3, H, W]``, RGB, 0..1.
        model: the structured edge model of OpenCV, a .yml or .yml.gz file.
        most: maximum number of proposals.

    Returns:
        The boxes with their scores.

    Raises:
        MissingExtraError: OpenCV's contributed modules are not installed.
        UserError: the model does not exist or is invalid, or the image has another shape.

    Examples:
        >>> edge_boxes(torch.rand(3, 240, 320), Path("model.yml.gz"), most=100)  # doctest: +SKIP
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise UserError("image", "a floating tensor [3, H, W] with values 0..1", list(image.shape))
    if most < 1:
        raise UserError("most", "at least 1", most)
    detector = _detector(model)
    pixels = np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy(), dtype=np.float32)
    edges = detector.detectEdges(pixels)
    thin = detector.edgesNms(edges, detector.computeOrientation(edges))
    search: Any = _ximgproc().createEdgeBoxes()
    search.setMaxBoxes(most)
    found, scores = search.getBoundingBoxes(thin, detector.computeOrientation(edges))
    corners = np.asarray(found, dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    boxes = Boxes(torch.from_numpy(corners), ImageSize(image.shape[1], image.shape[2])).clip()
    return Proposals(boxes, torch.from_numpy(np.asarray(scores, dtype=np.float32).reshape(-1)))


def _ximgproc() -> Any:
    try:
        return importlib.import_module("cv2").ximgproc
    except (ImportError, AttributeError) as error:
        raise MissingExtraError("opencv-contrib-python-headless", "selective-search", "EdgeBoxes") from error


@lru_cache(maxsize=1)
def _detector(model: Path) -> Any:
    if not model.is_file():
        raise UserError(model, "OpenCV's structured edge model", "no such file")
    ximgproc = _ximgproc()
    cv2: Any = importlib.import_module("cv2")
    try:
        return ximgproc.createStructuredEdgeDetection(str(model))
    except cv2.error as error:
        raise UserError(model, "OpenCV's structured edge model", "another file") from error
