"""Options of a detector: one dataclass per stage, and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sppnet.detect.feature_options import MapOptions, PoolOptions, WindowOptions
from sppnet.detect.head_options import FcOptions, FinetuneOptions, IouHeadOptions, PostOptions
from sppnet.detect.stage_options import BoxOptions, SvmOptions, TargetOptions
from sppnet.errors import UserError

RELEASE_SCALES = (480, 576, 688, 874, 1200)
"""The five scales in the scripts of the release; the fourth is 864 in the paper (section 4.1)."""

Preset: TypeAlias = Literal["fast", "paper", "release", "rcnn"]


@dataclass(frozen=True, init=False)
class DetectorOptions:
    """Options of all stages of a detector.

    Options are given as dataclasses or individually by name; the names of all fields are distinct.

    Attributes:
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

    Examples:
        >>> DetectorOptions(C=0.01, nms=0.3).svm.C
        0.01
        >>> DetectorOptions.paper(features="pool").fc.features
        'pool'
        >>> DetectorOptions.rcnn().pool.pipeline, DetectorOptions.rcnn().box.ridge
        ('rcnn', 1000.0)
    """

    map: MapOptions = field(default_factory=MapOptions)
    pool: PoolOptions = field(default_factory=PoolOptions)
    window: WindowOptions = field(default_factory=WindowOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    svm: SvmOptions = field(default_factory=SvmOptions)
    box: BoxOptions = field(default_factory=BoxOptions)
    iou: IouHeadOptions = field(default_factory=IouHeadOptions)
    fc: FcOptions = field(default_factory=FcOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    post: PostOptions = field(default_factory=PostOptions)

    def __init__(self, **options: Any) -> None:
        stages: dict[str, Any] = {name: options.pop(name, make()) for name, make in _STAGES.items()}
        for name, value in options.items():
            owner = _OWNERS.get(name)
            if owner is None:
                known = ", ".join(sorted(_OWNERS))
                raise UserError("DetectorOptions", f"one of the options {known}", repr(name))
            stages[owner] = dataclasses.replace(stages[owner], **{name: value})
        for name, value in stages.items():
            object.__setattr__(self, name, value)

    def replace(self, **options: Any) -> DetectorOptions:
        """Return a copy with other values of some stages or options, given by name."""
        stages = {name: getattr(self, name) for name in _STAGES}
        return DetectorOptions(**(stages | options))

    @classmethod
    def preset(cls, name: Preset, **options: Any) -> DetectorOptions:
        """Return the options of a preset: ``"fast"``, ``"paper"``, ``"release"`` or ``"rcnn"``."""
        return {"fast": cls.fast, "paper": cls.paper, "release": cls.release, "rcnn": cls.rcnn}[name](
            **options
        )

    @classmethod
    def fast(cls, **options: Any) -> DetectorOptions:
        """Return the defaults: dense windows, two layers and an IoU head, for fitting in minutes on a CPU."""
        return cls(**options)

    @classmethod
    def paper(cls, **options: Any) -> DetectorOptions:
        """Return the settings of the paper (He et al. 2015, section 4): selective search, scale 688, fc7."""
        return cls(**_PAPER).replace(**options)

    @classmethod
    def release(cls, **options: Any) -> DetectorOptions:
        """Return the settings of the SPP_net release, which differ from those of the paper.

        Scale 874, cells and duplicate rule of the release, flipped images, a random scale per proposal in
        fine-tuning, and its learning rates (SPP_net release, spp_finetune_voc.m and solver files).
        """
        tune = FinetuneOptions(
            rates=(1e-3, 1e-4, 1e-5), lengths=(30_000, 30_000, 140_000), flipped=True, random_scale=True
        )
        changed = {"mean_pixel": 128.0, "scales": RELEASE_SCALES, "cells": "release", "negatives": "release"}
        return cls.paper(finetune=tune, **changed).replace(**options)

    @classmethod
    def rcnn(cls, **options: Any) -> DetectorOptions:
        """Return the settings of R-CNN (Girshick et al. 2014; R-CNN release).

        Crops of 227 pixels, a last pooling to 6x6, proposals without any overlap as background, flipped
        images, and regression on IoU above 0.6 with a penalty of 1000. R-CNN fine-tunes all layers; here
        only fc6, fc7 and the classifier are trained and the convolutional layers are frozen, so results with
        fine-tuned layers are those of a weaker baseline.
        """
        tune = FinetuneOptions(
            background_iou=(0.0, 0.5),
            rates=(1e-3, 1e-4, 1e-5, 1e-6),
            lengths=(20_000, 20_000, 20_000, 10_000),
            flipped=True,
        )
        changed = {"pipeline": "rcnn", "levels": (6,), "negatives": "release"}
        return cls.paper(finetune=tune, ridge=1000.0, above_iou=0.6, **changed).replace(**options)

    def check(self) -> None:
        """Raise `UserError` for the first value that is out of range or excluded by another option."""
        for name in _STAGES:
            getattr(self, name).check()
        if self.map.tile and (self.window.proposals is not None or self.window.source != "dense"):
            expected = "0 with proposals of whole images, from a file or a search"
            raise UserError("options.tile", expected, self.map.tile)
        learned = self.box.regression == "projected" or self.iou.iou_head > 0
        if learned and self.pool.pipeline == "rcnn":
            expected = "regression='pooled' or 'none' and iou_head=0 with pipeline='rcnn', which has no maps"
            raise UserError("options.regression", expected, f"{self.box.regression!r}, {self.iou.iou_head}")
        if self.iou.iou_head and self.box.regression != "projected":
            expected = "0, or regression='projected'"
            raise UserError("options.iou_head", expected, f"{self.iou.iou_head} with {self.box.regression!r}")
        if self.svm.mining == "images" and self.svm.evict_below > self.svm.add_above:
            expected = f"at most add_above, {self.svm.add_above}"
            raise UserError("options.evict_below", expected, self.svm.evict_below)


_STAGES: dict[str, Any] = {
    "map": MapOptions,
    "pool": PoolOptions,
    "window": WindowOptions,
    "target": TargetOptions,
    "svm": SvmOptions,
    "box": BoxOptions,
    "iou": IouHeadOptions,
    "fc": FcOptions,
    "finetune": FinetuneOptions,
    "post": PostOptions,
}
_OWNERS = {f.name: stage for stage, made in _STAGES.items() for f in dataclasses.fields(made)}
assert len(_OWNERS) == sum(len(dataclasses.fields(made)) for made in _STAGES.values())

_PAPER: dict[str, Any] = {
    "scales": (688,),
    "long_side": 0,
    "levels": (6, 3, 2, 1),
    "cells": "paper",
    "rounded": True,
    "source": "selective-search",
    "windows": 2000,
    "positives": "objects",
    "difficult": True,
    "flip_below": 0,
    "mining": "images",
    "loss": "hinge",
    "tolerance": 0.02,
    "mining_rounds": 1,
    "add_above": -1.0001,
    "regression": "pooled",
    "ridge": 4000.0,
    "iou_head": 0,
    "features": "fc7",
    "score_above": -1.5,
    "thinning": 0.3,
    "best": 0,
    "candidates": 0,
    "candidates_per_image": 0,
    "regressions": 1,
    "rescored": False,
    "iou_weight": 0.0,
    "calibrated": False,
    "nms": 0.3,
    "vote": 1.0,
}
