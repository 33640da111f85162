"""``sppnet benchmark fitting``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sppnet.cli.flag_table import PathKind
from sppnet.cli.flags import ConfigFile, read_flags
from sppnet.cli.paths import OptionalDataPath, OutFolder, WeightsPath, check_data_path
from sppnet.cli.screen import Screen, opened_screen, summary_rows

__all__ = ["FittingFlags", "run"]


@dataclass(frozen=True)
class FittingFlags:
    """Compare the times of fitting and prediction with those of peers, on the same weights and images.

    Attributes:
        detection: data set with boxes; synthetic images by default.
        classification: data set of class folders.
        windows: further data sets with boxes, on which the recall of dense windows is measured.
        backbone: builtin, lite0, lite2, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file.
        parts: measurements in addition to the detector.
        out: folder for the plots and the fitted detector.
        quick: reduce everything, to test that it runs.
        config: TOML file with values for these flags; flags on the command line win.
        json: print one JSON document on stdout and everything else on stderr.
    """

    detection: OptionalDataPath = None
    classification: OptionalDataPath = None
    windows: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="DATA ..."), PathKind(check_data_path, folder=True)
    ] = ()
    backbone: str = "builtin"
    weights: WeightsPath = None
    parts: tuple[str, ...] = (
        "prediction",
        "svm",
        "rcnn",
        "windows",
        "classifier",
        "curve",
        "growth",
        "faster_rcnn",
    )
    out: OutFolder = Path("benchmark-fitting")
    quick: bool = False
    config: ConfigFile = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure and print."""
    flags = read_flags(FittingFlags, "sppnet benchmark fitting", words)
    with opened_screen(json=flags.json) as screen, tempfile.TemporaryDirectory() as folder:
        from sppnet.benchmark import fitting

        detection, classification = flags.detection, flags.classification
        if detection is None:
            from sppnet.recipes.demo_data import write_demo_data

            made_up = write_demo_data(Path(folder))
            detection, classification = made_up.detection, classification or made_up.classification
        request = fitting.FittingRequest(
            detection=detection,
            classification=classification,
            windows=flags.windows,
            backbone=flags.backbone,
            weights=flags.weights,
            parts=flags.parts,
            out=flags.out,
            quick=flags.quick,
        )
        found = fitting.run(request)
        _show(screen, found)
        screen.document(found)
    return 0


def _show(screen: Screen, found: dict[str, Any]) -> None:
    rows = [[row[key] for key in ("work", "ours_s", "peer", "peer_s", "ratio")] for row in found["rows"]]
    if rows:
        screen.table("benchmark fitting", ("work", "ours, s", "peer", "peer, s", "peer / ours"), rows)
    for part in ("windows", "classifier", "curve", "growth"):
        if found.get(part):
            screen.table(part, list(found[part][0]), [list(row.values()) for row in found[part]])
    single = {k: found[k] for k in ("detector", "prediction_ms", "machine") if k in found}
    screen.table("on", ("", "value"), summary_rows(single))
