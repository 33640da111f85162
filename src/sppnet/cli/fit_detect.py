"""``sppnet fit detect``, and ``sppnet train detect``, which is the same with the paper's preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast, get_args

import tyro

from sppnet.cli.fit import FitFlags, fit_and_save
from sppnet.cli.flag_table import Group
from sppnet.cli.flags import UsageError, flag_path, flag_value, read_flags
from sppnet.cli.paths import check_data_path
from sppnet.config import as_config, read_toml
from sppnet.detect.feature_options import MapOptions, PoolOptions, WindowOptions
from sppnet.detect.head_options import FcOptions, FinetuneOptions, IouHeadOptions, PostOptions
from sppnet.detect.options import DetectorOptions, Preset
from sppnet.detect.stage_options import BoxOptions, SvmOptions, TargetOptions

__all__ = ["FitDetect", "fit_detect", "run"]


@dataclass(frozen=True)
class FitDetect(FitFlags):
    """Fit a detector on images with boxes: features of a frozen network, SVMs and box regressors.

    Presets define all options: fast (dense windows, an IoU head; minutes on a CPU), paper (the pipeline of
    the paper with fine-tuned fully connected layers), release (the pipeline of the released code) and rcnn
    (crops instead of pooling). With --cache, the same command resumes after an interruption.

    Attributes:
        preset: defaults of all other options.
        from_run: run of sppnet train classify to start from: backbone, weights, mean, fc6 and fc7; equivalent
            to --weights with its model.safetensors.
        cache: folder of cached stages, which several runs may share; OUT.stages by default for sppnet train
            detect. It may be removed when the run is written.
        map: computation of feature maps.
        pool: pooling of proposals.
        window: proposals.
        target: training targets of proposals.
        svm: SVMs and their hard negatives.
        box: bounding box regression.
        iou: the IoU head.
        fc: fully connected layers below the SVMs.
        finetune: their fine-tuning.
        post: selection of detections.
    """

    preset: Preset = "fast"
    from_run: Path | None = None
    cache: Path | None = None
    map: Annotated[
        MapOptions, tyro.conf.arg(name=""), Group("Images and maps", shown=("short-side", "layers", "tile"))
    ] = field(default_factory=MapOptions)
    pool: Annotated[PoolOptions, tyro.conf.arg(name=""), Group("Pooling", shown=("levels",))] = field(
        default_factory=PoolOptions
    )
    window: Annotated[
        WindowOptions, tyro.conf.arg(name=""), Group("Proposals", shown=("source", "proposals"))
    ] = field(default_factory=WindowOptions)
    target: Annotated[TargetOptions, tyro.conf.arg(name=""), Group("SVM targets", shown=())] = field(
        default_factory=TargetOptions
    )
    svm: Annotated[SvmOptions, tyro.conf.arg(name=""), Group("SVMs", shown=("C",))] = field(
        default_factory=SvmOptions
    )
    box: Annotated[BoxOptions, tyro.conf.arg(name=""), Group("Box regression", shown=())] = field(
        default_factory=BoxOptions
    )
    iou: Annotated[IouHeadOptions, tyro.conf.arg(name=""), Group("IoU head", shown=())] = field(
        default_factory=IouHeadOptions
    )
    fc: Annotated[FcOptions, tyro.conf.arg(name=""), Group("Fully connected layers", shown=("features",))] = (
        field(default_factory=FcOptions)
    )
    finetune: Annotated[FinetuneOptions, Group("Fine-tuning", shown=())] = field(
        default_factory=FinetuneOptions
    )
    post: Annotated[PostOptions, tyro.conf.arg(name=""), Group("Postprocessing", shown=("nms",))] = field(
        default_factory=PostOptions
    )

    def options(self) -> DetectorOptions:
        """Return the options of all stages."""
        stages = [f.name for f in dataclasses.fields(DetectorOptions)]
        return DetectorOptions(**{name: getattr(self, name) for name in stages})


def run(words: list[str]) -> int:
    """Fit a detector and write its run."""
    return fit_detect("sppnet fit detect", words, "fast")


def fit_detect(command: str, words: Sequence[str], preset: Preset) -> int:
    """Fit a detector and write its run.

    Args:
        command: name of the command, for error messages.
        words: the command line after it.
        preset: the default preset.

    Returns:
        The exit code.
    """
    flags = read_flags(FitDetect, command, words, _preset_values(command, words, preset))
    check_data_path(flags.data)
    from sppnet.cli.starts import start_network
    from sppnet.detect import Detector

    cache = flags.cache
    if cache is None and command == "sppnet train detect":
        cache = flags.out.with_name(flags.out.name + ".stages")
    backbone, weights = start_network(
        command, flags.backbone, FitFlags.backbone, flags.weights, flags.from_run
    )
    detector = Detector(
        backbone=backbone,
        weights=weights,
        device=flags.device,
        seed=flags.seed,
        val_share=flags.val_share,
        options=flags.options(),
        cache=cache,
    )
    return fit_and_save(detector, dataclasses.replace(flags, backbone=backbone, weights=weights))


def _preset_values(command: str, words: Sequence[str], preset: Preset) -> dict[str, object]:
    """Return the options of the preset on the command line or in the config file as default values."""
    config = flag_path(words, "config")
    asked: str | None = flag_value(words, "preset")
    if asked is None and config is not None:
        asked = str(read_toml(config).get("preset", preset))
    asked = preset if asked is None else asked
    if asked not in get_args(Preset):
        raise UsageError(command, f"preset {asked!r} is none of " + ", ".join(get_args(Preset)))
    return {"preset": asked, **as_config(DetectorOptions.preset(cast("Preset", asked)))}
