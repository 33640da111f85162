"""``sppnet features``: feature vectors of images, or of boxes on them, in one file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flag_table import ADVANCED
from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.cli.limits import pixel_limit
from sppnet.cli.paths import InputFile, OutFile, WeightsPath, check_extra, check_sources
from sppnet.cli.screen import opened_screen
from sppnet.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from sppnet.features.bulk import BulkResult

__all__ = ["FeaturesFlags", "run"]


@dataclass(frozen=True)
class FeaturesFlags:
    """Write the features of images, or of boxes on them, to a .npy or Parquet file.

    After an interruption, the same command resumes. Images that cannot be read are listed
    in OUT.failed.jsonl and on stderr; the exit code is then 2.

    Attributes:
        sources: images, folders and globs.
        out: file that ends in .npy (with an index, OUT.index.jsonl) or .parquet.
        boxes: file of boxes by image, in the format of --proposals; one feature vector per box.
        backbone: builtin, lite0, lite2, torchvision:NAME, timm:NAME or a network of the paper.
        weights: local weights of the backbone, a safetensors file; nothing is downloaded.
        layers: layers to pool, such as stride8 stride16; the default of the backbone if not given.
        levels: bins along each side of each level of the pyramid.
        mode: pooling operation.
        scales: short sides to resize to, in pixels; 0 for the size of the image.
        long_side: maximum long side after resizing, in pixels.
        normalise: l2-normalise the features of each scale, layer and level (whole images only).
        dtype: data type of the features in the file.
        max_megapixels: maximum size of images; 179 by default, the limit of Pillow.
        checkpoint_seconds: seconds between checkpoints; an interruption loses at most about this much work.
        allow_download: download sources that are http or https URLs, into OUT.downloads/.
        device: device to compute on.
        seed: seed of the weights of a random: backbone.
        config: TOML file with values for these flags; flags on the command line win.
        json: print one JSON document on stdout and everything else on stderr.
        overwrite: replace the file, and unfinished parts of another job.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    out: OutFile
    boxes: InputFile = None
    backbone: str = DEFAULT_BACKBONE
    weights: WeightsPath = None
    layers: tuple[str, ...] = ()
    levels: tuple[int, ...] = (6, 3, 2, 1)
    mode: Literal["max", "mean"] = "max"
    scales: tuple[int, ...] = (0,)
    long_side: Annotated[int | None, ADVANCED] = None
    normalise: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    max_megapixels: Annotated[float | None, ADVANCED] = None
    checkpoint_seconds: Annotated[float, ADVANCED] = 10.0
    allow_download: Annotated[bool, ADVANCED] = False
    device: Device = "auto"
    seed: Annotated[int, ADVANCED] = 0
    config: ConfigFile = None
    json: bool = False
    overwrite: bool = False


def run(words: list[str]) -> int:
    """Compute and write features; return 2 if an image was skipped."""
    flags = read_flags(FeaturesFlags, "sppnet features", words)
    if not flags.sources:
        raise UsageError("sppnet features", "Missing from sppnet features: SOURCE...")
    check_sources(flags.sources)
    if flags.out.suffix.lower() == ".parquet":
        check_extra("pyarrow", "parquet", "features in Parquet files")
    with opened_screen(json=flags.json) as screen, pixel_limit(flags.max_megapixels):
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
