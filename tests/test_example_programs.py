"""The scripts in examples/ run and show what they claim, on small synthetic input."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples"


def _loaded(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def head_rows(tmp_path_factory):
    module = _loaded("fast_rcnn_head")
    samples = module.synthetic_samples(6)
    return {
        name: module.summary(name, module.train_both(samples, 3, (module.pool_with_torchvision, ours), 60))
        for name, ours in (("cells", module.pool_cells_of_torchvision), ("boxes", module.pool_with_sppnet))
    }


def test_a_head_learns_the_same_from_the_same_cells(head_rows):
    row = head_rows["cells"]
    assert row["last_loss_roi_pool"] < 0.6 * row["first_loss"]
    assert row["largest_difference"] < 1e-4


def test_a_head_learns_nearly_the_same_from_the_same_boxes(head_rows):
    row = head_rows["boxes"]
    assert row["largest_difference"] > 1e-4  # the rules differ by a cell
    assert row["last_loss_sppnet"] == pytest.approx(row["last_loss_roi_pool"], rel=0.25)


def test_the_cells_of_roi_pool_are_pooled_to_equal_values():
    module = _loaded("fast_rcnn_head")
    for sample in module.synthetic_samples(3, seed=1):
        boxes = torch.nn.functional.pad(sample.boxes, (1, 0))
        ours, theirs = (
            pool(sample.maps, boxes)
            for pool in (module.pool_cells_of_torchvision, module.pool_with_torchvision)
        )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_script_prints_its_rows(capsys):
    assert _loaded("fast_rcnn_head").main(["--images", "2", "--steps", "4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["boxes"] for row in rows] == ["same cells", "same boxes"]
