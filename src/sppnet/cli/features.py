"""``sppnet features``: feature vectors of images, or of boxes on them, in one file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.cli.screen import opened_screen

if TYPE_CHECKING:
    from sppnet.features.bulk import BulkResult

__all__ = ["FeaturesFlags", "run"]


@dataclass(frozen=True)
class FeaturesFlags:
    """Write the features of images, or of boxes on them, to a .npy or Parquet file.

    The same command after an interruption goes on where it ended. Images that cannot be read are listed in
    OUT.failed.jsonl and named on stderr; the exit code is 2 then.

    Attributes:
        sources: images, folders and globs.
        out: a file that ends in .npy (with an index, OUT.index.jsonl) or .parquet.
        boxes: boxes by image, in a file as --proposals takes it; one row for each box.
        backbone: builtin, lite0, lite2, torchvision:NAME, timm:NAME or one of the paper's networks.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded then.
        layers: maps to pool, such as stride8 stride16; the backbone's default when left out.
        levels: bins along each side of each level of the pyramid.
        mode: max or mean.
        scales: short sides to resize to, in pixels; 0 keeps the image's own size, the default.
        long_side: limit of the long side after resizing, in pixels.
        normalise: divide the part of each scale, layer and level by its l2 norm (whole images only).
        dtype: type of the numbers in the file.
        checkpoint_seconds: about as much work is lost by an interruption.
        allow_download: fetch sources that are URLs of http or https, into OUT.downloads/.
        device: where to compute.
        seed: of the weights of a random: backbone.
        config: a TOML file with any of these.
        json: one JSON document on stdout, everything else on stderr.
        overwrite: replace what is there, and start over.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    out: Path
    boxes: Path | None = None
    backbone: str = "builtin"
    weights: Path | None = None
    layers: tuple[str, ...] = ()
    levels: tuple[int, ...] = (6, 3, 2, 1)
    mode: Literal["max", "mean"] = "max"
    scales: tuple[int, ...] = (0,)
    long_side: int | None = None
    normalise: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    checkpoint_seconds: float = 10.0
    allow_download: bool = False
    device: Device = "auto"
    seed: int = 0
    config: ConfigFile = None
    json: bool = False
    overwrite: bool = False


def run(words: list[str]) -> int:
    """Compute and write; 2 when an image had to be left out."""
    flags = read_flags(FeaturesFlags, "sppnet features", words)
    if not flags.sources:
        raise UsageError("sppnet features", "Missing from sppnet features: SOURCE...")
    with opened_screen(json=flags.json) as screen:
        result = _write(flags)
        for _, error in result.failures:
            print(f"sppnet: {error}", file=sys.stderr)
        screen.say(
            f"{result.rows} rows of {result.length} numbers from {result.images} images in {result.out}, "
            f"{len(result.failures)} images left out"
        )
        screen.document(
            {
                "out": result.out,
                "index": result.index,
                "images": result.images,
                "rows": result.rows,
                "length": result.length,
                "failed": [{"path": path, "error": error} for path, error in result.failures],
            }
        )
    return 2 if result.failures else 0


def _write(flags: FeaturesFlags) -> BulkResult:
    from sppnet.data import find_images
    from sppnet.data.sources import local_sources
    from sppnet.features.bulk import write_features
    from sppnet.features.extractor import FeatureExtractor
    from sppnet.proposals import read_proposals

    downloads = flags.out.with_name(flags.out.name + ".downloads")
    images = find_images(local_sources(flags.sources, downloads, allow_download=flags.allow_download))
    boxes = None if flags.boxes is None else read_proposals(flags.boxes)
    extractor = FeatureExtractor(
        flags.backbone,
        weights=flags.weights,
        layers=flags.layers or None,
        levels=flags.levels,
        mode=flags.mode,
        scales=flags.scales,
        long_side=flags.long_side,
        normalise=flags.normalise,
        dtype=flags.dtype,
        device=flags.device,
        seed=flags.seed,
    )
    return write_features(
        extractor,
        images,
        flags.out,
        boxes,
        overwrite=flags.overwrite,
        checkpoint_seconds=flags.checkpoint_seconds,
    )
