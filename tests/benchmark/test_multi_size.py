from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.backbones.builtin import BuiltinNet
from sppnet.benchmark import multi_size
from sppnet.benchmark.multi_size import Ablation, ablate, divide, evaluate_head, recipe_of
from sppnet.errors import UserError
from sppnet.recipes.pretraining import ClassHead

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Create two classes of six images, dark and bright."""
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 150)):
        for number in range(6):
            path = tmp_path / "data" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(low, low + 100, (40, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def test_every_fifth_image_of_a_class_is_held_out(data: Path) -> None:
    train, held = divide(data)
    assert held.paths == (data / "bright/4.png", data / "dark/4.png")
    assert held.labels.tolist() == [0, 1]
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert not set(train.paths) & set(held.paths)


def test_runs_differ_in_size_and_seed_only_and_exclude_held_out_images(data: Path) -> None:
    _, held = divide(data)
    ablation = Ablation(data, data.parent)
    one, several = (recipe_of(ablation, kind, 0, held) for kind in multi_size.KINDS)
    assert (one.single_size, several.single_size) == (True, False)
    assert replace(one, single_size=False, out=several.out) == several
    assert one.exclude == ("bright/4.png", "dark/4.png")
    assert recipe_of(ablation, "multi-size", 1, held).seed == 1


def test_too_few_images_raise_a_user_error(data: Path) -> None:
    for number in range(2):
        (data / f"dark/{number}.png").unlink()
    with pytest.raises(UserError, match="at least two class folders"):
        divide(data)


def test_a_head_is_evaluated_at_the_given_sizes(data: Path) -> None:
    _, held = divide(data)
    net, head = BuiltinNet(folded=False).eval(), ClassHead(2)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor([1.0, 0.0]))
    # A head that always says "bright" is right for one of two classes.
    assert evaluate_head(net, head, held, (16, None)) == {"16": 0.5, "own": 0.5}


def test_an_ablation_has_one_row_per_run_and_is_cached(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation = Ablation(data, data.parent / "out", steps=1, batch=2, seeds=1, device="cpu")
    rows = ablate(ablation)  # without a teacher, labels are all there is, whatever their weight
    assert [row["kind"] for row in rows] == ["single-size", "multi-size"]
    for row in rows:
        for judged in (row["head"], row["features"]):
            assert isinstance(judged, dict)
            assert set(judged) == {"96", "128", "192", "256", "own"}
            assert all(0 <= value <= 1 for value in judged.values())
    assert json.loads((data.parent / "out/multi_size.json").read_text()) == rows
    monkeypatch.setattr(multi_size, "pretrain", None)
    assert ablate(ablation) == rows
