"""Description of a bulk extraction, with a digest of its inputs and options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sppnet.backbones import Backbone

if TYPE_CHECKING:
    from sppnet.features.extractor import FeatureExtractor


@dataclass(frozen=True)
class Job:
    """A bulk extraction.

    Attributes:
        images: number of images.
        boxes: True for features of boxes, False for features of whole images.
        length: ``D``, length of a feature vector.
        dtype: ``"float32"`` or ``"float16"``.
        features: options of the extractor.
        digest: digest of options, weights, images (path, size in bytes, modification time) and boxes.
    """

    images: int
    boxes: bool
    length: int
    dtype: str
    features: dict[str, Any]
    digest: str


def describe_job(
    extractor: FeatureExtractor, images: Sequence[Path], boxes: Mapping[str, Tensor] | None
) -> Job:
    """Describe the job of `write_features` with these arguments.

    Raises:
        UserError: an option of the extractor is invalid.
    """
    network = extractor.network_
    features: dict[str, Any] = {
        **extractor.get_params(),
        "layers": [info.name for info in network.layers],
        "levels": list(extractor.levels),
        "scales": None if extractor.scales is None else sorted(set(extractor.scales)),
        "weights": None if extractor.weights is None else str(extractor.weights),
        "device": network.device.type,
        "precision": str(network.precision).removeprefix("torch."),
    }
    digest = hashlib.sha256(json.dumps(features, sort_keys=True).encode())
    _add_weights(digest, network)
    for path in images:
        try:
            found = path.stat()
            facts = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:  # reading the image reports the reason
            facts = "unreadable"
        digest.update(os.fsencode(path) + b"\0" + facts.encode() + b"\0")
    for key, xyxy in (boxes or {}).items():
        digest.update(key.encode("utf-8", "surrogateescape") + b"\0" + xyxy.numpy().tobytes() + b"\0")
    length = extractor.n_features_out_ if boxes is None else extractor.n_features_box_
    return Job(len(images), boxes is not None, length, extractor.dtype, features, digest.hexdigest())


def _add_weights(digest: Any, network: Backbone) -> None:
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
