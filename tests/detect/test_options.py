from __future__ import annotations

import dataclasses
import typing

import pytest

from sppnet.config import as_config, from_config
from sppnet.detect import Detector, DetectorOptions
from sppnet.detect.options import Preset
from sppnet.errors import UserError

PRESETS = typing.get_args(Preset)
STAGES = [f.name for f in dataclasses.fields(DetectorOptions)]
NAMES = [f.name for stage in STAGES for f in dataclasses.fields(getattr(DetectorOptions(), stage))]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_in_range_and_survives_a_run(name):
    options = DetectorOptions.preset(name)
    options.check()
    assert from_config(DetectorOptions, as_config(options), "config.toml") == options


def test_presets_differ():
    assert len({str(as_config(DetectorOptions.preset(name))) for name in PRESETS}) == len(PRESETS)


def test_every_option_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES)
    assert not set(NAMES) & set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_an_option_is_reached_by_its_name_alone(stage):
    options = DetectorOptions()
    for field in dataclasses.fields(getattr(options, stage)):
        value = getattr(getattr(options, stage), field.name)
        other = 3 if value is None else value
        flat = Detector(**{field.name: other}).options
        assert flat == options.replace(**{field.name: other}) == DetectorOptions(**{field.name: other})
        assert getattr(getattr(flat, stage), field.name) == other


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"pipeline": "rcnn"}, "regression"),
        ({"regression": "pooled"}, "iou_head"),
        ({"regression": "none"}, "iou_head"),
        ({"mining": "images", "evict_below": 0.0}, "evict_below"),
        ({"crop_side": 10}, "crop_padding"),
        ({"hard_share": 1.0}, "hard_share"),
        ({"inside": 0.0}, "inside"),
        ({"jitter_shift": -0.1}, "jitter_shift"),
        ({"box_bins": ()}, "box_bins"),
        ({"negatives_mb": 0}, "negatives_mb"),
        ({"finetune__rates": (0.0,)}, "finetune.rates"),
    ],
)
def test_what_is_out_of_range_or_excludes_each_other_is_refused_before_data(changed, where):
    with pytest.raises(UserError, match=f"options.{where}"):
        Detector(**changed).fit("nowhere")


def test_an_unknown_option_is_refused():
    with pytest.raises(UserError, match="most_windows"):
        DetectorOptions(most_windows=3)
