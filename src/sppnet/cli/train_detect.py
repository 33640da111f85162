"""``sppnet train detect``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, cast, get_args

import tyro

from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flag_table import Group
from sppnet.cli.flags import UsageError, flag_path, flag_value, read_flags
from sppnet.cli.paths import OptionalOutFolder, OptionalRunPath
from sppnet.cli.starts import start_network
from sppnet.config import as_config, read_toml
from sppnet.detect.paper import PaperOptions
from sppnet.detect.paper.options import Preset
from sppnet.runs import check_out

__all__ = ["TrainDetect", "run"]

_COMMAND = "sppnet train detect"
_SHOWN = Group("Detector", shown=("layer", "scales", "levels", "features", "windows.source", "windows.file"))


@dataclass(frozen=True)
class TrainDetect(FitFlags):
    """Train a detector by the paper's pipeline: fully connected layers, SVMs and box regressors; or R-CNN.

    Every stage is cached when it is finished. The same command after an interruption continues from there.

    Attributes:
        preset: defaults of all other options: the paper's, those of its released code, or R-CNN's.
        from_run: run of sppnet train classify to start from: backbone, weights, mean, fc6 and fc7.
        options: options of every stage.
        cache: folder for cached stages, which several runs may share; OUT.stages when left out. It may be
            removed when the run is written.
    """

    preset: Preset = "paper"
    from_run: OptionalRunPath = None
    options: Annotated[PaperOptions, tyro.conf.arg(name=""), _SHOWN] = field(default_factory=PaperOptions)
    cache: OptionalOutFolder = None


def run(words: list[str]) -> int:
    """Train a detector and write its run."""
    flags = read_flags(TrainDetect, _COMMAND, words, _preset_values(words))
    check_out(flags.out, overwrite=flags.overwrite)
    cache = flags.cache or flags.out.with_name(flags.out.name + ".stages")
    backbone, weights = start_network(
        _COMMAND, flags.backbone, FitFlags.backbone, flags.weights, flags.from_run
    )
    from sppnet.detect.paper import PaperDetector

    detector = PaperDetector(
        backbone=backbone,
        weights=weights,
        device=flags.device,
        seed=flags.seed,
        val_share=flags.val_share,
        options=flags.options,
        cache=cache,
    )
    return fit_and_save(detector, dataclasses.replace(flags, backbone=backbone, weights=weights))


def _preset_values(words: Sequence[str]) -> dict[str, object]:
    """Return the options of the preset on the command line or in the config file as default values."""
    config = flag_path(words, "config")
    asked = flag_value(words, "preset")
    if asked is None and config is not None:
        asked = str(read_toml(config).get("preset", "paper"))
    if asked is None or asked == "paper":
        return {}
    if asked not in get_args(Preset):
        raise UsageError(_COMMAND, f"preset {asked!r} is none of " + ", ".join(get_args(Preset)))
    return {"options": as_config(PaperOptions.preset(cast("Preset", asked)))}
