from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from network_images import write_images
from safetensors.torch import load_file

from sppnet.backbones import load_backbone
from sppnet.classify import NetworkClassifier, NetworkOptions, TrainOptions, training
from sppnet.classify.network import PyramidNetwork, make_network
from sppnet.classify.samples import (
    Sample,
    TrainImages,
    alter_colour,
    epoch_batches,
    native_shapes,
    object_crop,
)
from sppnet.classify.train_options import Plateau
from sppnet.cli.train_classify import run as train_words
from sppnet.errors import UserError
from sppnet.estimators import load
from sppnet.files import new_temporary
from sppnet.structures import ImageSize

TINY = TrainOptions(short_side=40, crop=36, epochs=2, batch=8, drops=(), rate=0.01)
NET = NetworkOptions(pyramid=(2, 1), hidden=(16,), start="he")
BACKBONE = "zf5-small/32"


def classifier(**train: object) -> NetworkClassifier:
    return NetworkClassifier(BACKBONE, device="cpu", network=NET, train=replace(TINY, **train))


def test_an_epoch_has_every_image_once_and_differs_from_the_next() -> None:
    first, second = (epoch_batches(50, None, 8, epoch, 0) for epoch in (0, 1))
    assert sorted(i for batch in first for i in batch) == list(range(50))
    assert first != second
    assert first == epoch_batches(50, None, 8, 0, 0)


def test_native_batches_are_grouped_by_shape() -> None:
    shapes = [ImageSize(10, 10 + i % 3) for i in range(60)]
    batches = epoch_batches(60, shapes, 10, 0, 0)
    assert sorted(i for batch in batches for i in batch) == list(range(60))
    assert all(len({shapes[i] for i in batch}) == 1 for batch in batches)


def test_sizes_by_epoch() -> None:
    options = TrainOptions(sizes=(224, 180))
    assert [options.size(e, 0) for e in range(4)] == [224, 180, 224, 180]
    drawn = [TrainOptions(sizes=(180, 224), random_size=True).size(e, 0) for e in range(300)]
    assert min(drawn) == 180
    assert max(drawn) == 224
    assert len(set(drawn)) > 30


def test_plateaus_divide_the_rate_twice() -> None:
    options = TrainOptions(patience=2)
    state, rates = Plateau(), []
    for epoch, value in enumerate([3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]):
        state = state.after(value, epoch, options)
        rates.append(round(options.rate / state.rate(options)))
    assert rates == [1, 1, 1, 10, 10, 10, 100, 100, 100, 100]


def test_crops_come_from_the_middle_and_the_corners(tmp_path: Path) -> None:
    root = write_images(tmp_path, "train", 1, 1)
    sample = Sample(next(root.rglob("*.png")), 0)
    options = replace(TINY, crop=20, colour=0, flip=False)
    whole = TrainImages([sample], replace(options, native=True), 0, 0)[0][0]
    down, right = whole.shape[1] - 20, whole.shape[2] - 20
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    wanted = [whole[:, t : t + 20, r : r + 20] for t, r in corners]
    seen: set[int] = set()
    for epoch in range(60):
        image, label = TrainImages([sample], options, epoch, 0)[0]
        fits = [i for i, one in enumerate(wanted) if torch.equal(one, image)]
        assert fits
        assert label == 0
        seen.add(fits[0])
    assert seen == set(range(5))


def test_the_crop_is_resized_for_the_other_size(tmp_path: Path) -> None:
    sample = Sample(next(write_images(tmp_path, "train", 1, 1).rglob("*.png")), 0)
    options = replace(TINY, sizes=(36, 28))
    assert [TrainImages([sample], options, e, 0)[0][0].shape[1] for e in (0, 1, 2)] == [36, 28, 36]


def test_colour_alteration_moves_all_pixels_alike() -> None:
    image = torch.rand(3, 4, 5)
    moved = alter_colour(image, [0.1, -0.2, 0.3]) - image
    assert torch.allclose(moved, moved[:, :1, :1].expand_as(moved), atol=1e-6)
    assert torch.equal(alter_colour(image, [0, 0, 0]), image)


def test_object_crops_keep_half_of_the_object() -> None:
    chance = random.Random(0)
    for box in ((10.0, 20.0, 40.0, 50.0), (0.0, 0.0, 8.0, 90.0), (150.0, 60.0, 200.0, 100.0)):
        for _ in range(50):
            top, left = object_crop(box, 64, (36, 136), chance)
            assert 0 <= top <= 36
            assert 0 <= left <= 136
            wide = min(box[2], left + 64) - max(box[0], left)
            high = min(box[3], top + 64) - max(box[1], top)
            assert wide * high >= 0.5 * (box[2] - box[0]) * (box[3] - box[1])


def test_mixed_sizes_give_what_each_image_gives_alone() -> None:
    network = make_network(BACKBONE, 4, NET, 36).eval()
    images = [torch.rand(3, 36, 44), torch.rand(3, 40, 36), torch.rand(3, 36, 44)]
    with torch.inference_mode():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_no_spp_is_the_sliding_pool_and_takes_one_size() -> None:
    network = make_network(BACKBONE, 4, replace(NET, pyramid=()), 64).eval()
    maps = torch.rand(2, 8, 13, 13)
    assert torch.equal(network.pool(maps), torch.nn.MaxPool2d(3, 2)(maps).flatten(1))
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 4)
    with pytest.raises(UserError, match="13 x 13"):
        network(torch.rand(1, 3, 80, 64))


def test_fc6_of_the_paper_s_networks_sees_50_bins_or_36() -> None:
    backbone = make_network("zf5", 2, NetworkOptions(hidden=()), 224).backbone
    wide = [PyramidNetwork(backbone, 2, NetworkOptions(p, ()), 13).head[0] for p in ((6, 3, 2, 1), ())]
    assert [layer.in_features for layer in wide] == [12_800, 9_216]


@pytest.mark.parametrize(
    "train",
    [{}, {"sizes": (36, 28)}, {"native": True, "crop": 1}, {"sizes": (28, 36), "random_size": True}],
)
def test_training_learns_colours(tmp_path: Path, train: dict[str, object]) -> None:
    write_images(tmp_path, "train")
    write_images(tmp_path, "test", 3)
    trained = classifier(**{"epochs": 8, "batch": 6, **train}).fit(tmp_path, quiet=True)
    assert trained.evaluate(tmp_path, quiet=True)["accuracy"] > 0.6


def test_native_images_keep_their_shape(tmp_path: Path) -> None:
    samples = [Sample(p, 0) for p in sorted(write_images(tmp_path, "train", 2, 1).rglob("*.png"))]
    options = replace(TINY, native=True)
    images = TrainImages(samples, options, 0, 0)
    assert [images[i][0].shape[1:] for i in range(2)] == [(48, 40), (40, 52)]
    assert native_shapes(samples, options) == [ImageSize(48, 40), ImageSize(40, 52)]


def test_a_run_loads_predicts_and_refuses_another_kind(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train")
    trained = classifier().fit(data, folder=tmp_path / "run", quiet=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.toml", "model.json", "model.safetensors",
        "checkpoint.safetensors", "log.jsonl", "tensorboard",
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    again = load(tmp_path / "run", "cpu")
    assert isinstance(again, NetworkClassifier)
    image = next(data.rglob("*.png"))
    one, other = again.predict(image), trained.predict(image)
    assert not isinstance(one, list)
    assert not isinstance(other, list)
    assert torch.equal(one.scores, other.scores)


def test_an_interrupted_run_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "data", "train")
    whole = classifier().fit(data, folder=tmp_path / "whole", quiet=True)
    step, steps = training._Run._step, []

    def stopping(self: object, images: object, labels: object) -> object:
        steps.append(None)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step(self, images, labels)

    monkeypatch.setattr(training._Run, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        classifier().fit(data, folder=tmp_path / "broken", quiet=True)
    again = classifier().fit(data, folder=tmp_path / "broken", resume=True, quiet=True)
    ours, theirs = again.network_.state_dict(), whole.network_.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_killed_run_goes_on_exactly(program, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train", 8)
    words = [
        str(data), "--backbone", BACKBONE, "--device", "cpu", "--pyramid", "2", "1", "--hidden", "16",
        "--start", "he", "--short-side", "40", "--crop", "36", "--sizes", "36", "28", "--epochs", "2",
        "--batch", "8", "--patience", "1", "--checkpoint-steps", "2",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_words([*words, "--out", str(whole)])
    stopped = program("killed_training", "6", *words, "--out", str(broken))
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert load(broken, "cpu") is not None  # a run already, and loadable
    train_words([str(data), "--out", str(broken), "--resume", "--device", "cpu"])
    for name in ("checkpoint.safetensors", "model.safetensors"):
        ours, theirs = load_file(broken / name), load_file(whole / name)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    told = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (broken, whole)
    ]
    assert [x["loss"] for x in told[0]] == [x["loss"] for x in told[1]]


def test_resume_refuses_other_flags_and_folders_without_checkpoint(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train", 2)
    classifier(epochs=1).fit(data, folder=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="train of the run"):
        train_words([str(data), "--out", str(tmp_path / "run"), "--resume", "--epochs", "9"])
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match="checkpoint of a training run"):
        train_words([str(data), "--out", str(tmp_path / "run"), "--resume", "--device", "cpu"])


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"crop": 41}, {"random_size": True}, {"native": True, "sizes": (30,)}, {"rate": 0.0}],
)
def test_options_out_of_range_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="train"):
        replace(TINY, **wrong).check()


def run_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 0.0}, "train.rate"),
        ({"rate": 1e5, "batch": 2}, "a finite loss"),
        ({"epochs": 0}, "train.epochs"),
    ],
)
def test_a_training_that_fails_at_first_touches_no_old_run(
    tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    data = write_images(tmp_path / "data", "train", 2)
    classifier(epochs=1).fit(data, folder=tmp_path / "run", quiet=True)
    before = run_files(tmp_path / "run")
    with pytest.raises(UserError, match=said):
        classifier(**wrong).fit(data, folder=tmp_path / "run", overwrite=True, quiet=True)
    assert run_files(tmp_path / "run") == before
    with pytest.raises(UserError, match=said):
        classifier(**wrong).fit(data, folder=tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()


def test_resume_goes_on_with_the_same_data_options_and_seed_only(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train", 2)
    run = tmp_path / "run"
    classifier().fit(data, folder=run, quiet=True)
    before = run_files(run)
    other = NetworkClassifier(BACKBONE, device="cpu", network=NET, train=TINY, seed=1)
    for asked, said in ((other, "seed 0, as in the checkpoint"), (classifier(epochs=3), "train.epochs 2")):
        with pytest.raises(UserError, match=said):
            asked.fit(data, folder=run, resume=True, quiet=True)
    image = next((data / "train" / "class0").glob("*.png"))
    image.rename(data / "train" / "class1" / "moved.png")
    with pytest.raises(UserError, match="the images and labels of the checkpoint"):
        classifier().fit(data, folder=run, resume=True, quiet=True)
    assert run_files(run) == before


def test_resume_of_a_finished_training_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train", 2)
    run = tmp_path / "run"
    classifier().fit(data, folder=run, quiet=True)
    names = {path.name for path in run.iterdir()}
    new_temporary(run / "model.json")  # as a training that is killed in its last write
    classifier().fit(data, folder=run, resume=True, quiet=True)
    assert {path.name for path in run.iterdir()} == names


def test_the_last_epoch_is_kept_where_nothing_is_held_out(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train")
    # The rate is so high that the loss rises after the first epoch.
    rising = classifier(rate=0.5, epochs=4, batch=3, momentum=0.99).fit(
        data, folder=tmp_path / "run", quiet=True
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] > min(line["loss"] for line in lines)
    last = load_file(tmp_path / "run" / "checkpoint.safetensors")
    kept = load_file(tmp_path / "run" / "model.safetensors")
    for name, value in rising.network_.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"])
        assert torch.equal(value, kept[name])
    model = json.loads((tmp_path / "run" / "model.json").read_text())
    assert model["summary"]["epochs"] == model["summary"]["kept_epoch"] == 4


def test_the_normalisation_travels_with_the_weights(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", "train", 2)
    trained = classifier(epochs=1).fit(data, folder=tmp_path / "run", quiet=True)
    again = load_backbone(BACKBONE, tmp_path / "run" / "model.safetensors")
    image = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        for ours, theirs in zip(again(image), trained.network_.backbone(image), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_undivided_data_are_divided_and_damaged_images_listed(tmp_path: Path) -> None:
    root = write_images(tmp_path, "flat", each=10)  # class folders without a split
    data = root / "flat"
    one = NetworkClassifier(BACKBONE, device="cpu", network=NET, train=replace(TINY, epochs=1))
    one.fit(data, quiet=True)
    assert one.fitted_on_ is not None
    assert (len(one.fitted_on_.trained), len(one.fitted_on_.held_out)) == (24, 6)
    found = one.evaluate(data, quiet=True)
    assert (found["images"], found["held_out"], found["trained_on"]) == (6, True, 0)
    assert any("held out" in note for note in one.summary_["notes"])
    again = load(one.save(tmp_path / "run"), "cpu")
    assert again.fitted_on_ == one.fitted_on_
    every = NetworkClassifier(BACKBONE, device="cpu", network=NET, train=replace(TINY, epochs=1), val_share=0)
    assert every.fit(data, quiet=True).evaluate(data, quiet=True)["trained_on"] == 30
    (data / "class0" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png.*--skip-bad"):
        one.fit(data, quiet=True)
    kept = one.fit(data, skip_bad=True, quiet=True)
    assert len(kept.fitted_on_.trained) + len(kept.fitted_on_.held_out) == 29
