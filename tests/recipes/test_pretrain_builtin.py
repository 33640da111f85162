from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_bytes
from torch import Tensor

from sppnet.backbones import load_backbone
from sppnet.backbones.builtin import BuiltinNet, load_builtin
from sppnet.errors import UserError
from sppnet.recipes import pretrain_builtin as recipe_module
from sppnet.recipes.crops import UNKNOWN, TrainingImages, list_images, make_batch, read_images
from sppnet.recipes.distillation import Teacher, explained, load_teacher
from sppnet.recipes.muon import Muon, orthogonalise
from sppnet.recipes.pretrain_builtin import pretrain
from sppnet.recipes.pretraining import Recipe, Run, examples, in_units, save, start, train_step

pytestmark = pytest.mark.usefixtures("one_thread")


def _small(tmp_path: Path, **changes: object) -> Recipe:
    recipe = Recipe(
        data=tmp_path, out=tmp_path / "net.safetensors", teacher=tmp_path / "teacher.safetensors",
        steps=8, batch=3, repeats=2, chunk=2, device="cpu", single_size=True,
    )  # fmt: skip
    # The types of fields given by name cannot be checked.
    return replace(recipe, **changes)  # pyright: ignore[reportArgumentType]


def _unlabelled(pixels: list[Tensor]) -> TrainingImages:
    return TrainingImages(tuple(pixels), (UNKNOWN,) * len(pixels), ())


def _images() -> TrainingImages:
    """Create coloured gratings, whose smooth patterns are learned in a few steps."""
    rows, columns = torch.meshgrid(torch.arange(150.0), torch.arange(170.0), indexing="ij")
    waves = [torch.sin(rows / (3 + k)) * torch.cos(columns / (9 - k)) for k in range(6)]
    pixels = [(torch.stack([w, -w, w.roll(5, 0)]) * 120 + 128).to(torch.uint8) for w in waves]
    return TrainingImages(tuple(pixels), (0, 0, 0, 1, 1, UNKNOWN), ("low", "high"))


def _fake_teacher(images: Tensor) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    pairs = zip(BuiltinNet.CHANNELS, BuiltinNet.STRIDES, strict=True)
    return tuple(
        F.conv2d(F.avg_pool2d(images, stride), torch.randn(channels, 3, 1, 1, generator=generator))
        for channels, stride in pairs
    )


def _write(path: Path, height: int = 100, width: int = 120, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    Image.fromarray(values).resize((width, height)).save(path)


@pytest.fixture(scope="module")
def lite2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "lite2.safetensors"
    state = load_backbone("random:lite2", seed=1).trunk.state_dict()
    save_file({name.removeprefix("net."): t.contiguous() for name, t in state.items()}, path)
    return path


def test_held_out_images_are_skipped(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "test/cat/2.png", "loose.png", "skip/me.png"):
        _write(tmp_path / name, 20, 20)
    for name in ("a", "b"):
        _write(tmp_path / f"voc/JPEGImages/{name}.png", 20, 20)
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\n")
    (tmp_path / "notes.txt").write_text("no image")
    found = {str(path.relative_to(tmp_path)) for path in list_images(tmp_path, ("skip/*",))}
    assert found == {"train/cat/1.png", "loose.png", "voc/JPEGImages/a.png"}


def test_classes_are_named_by_folders(tmp_path: Path) -> None:
    for name in ("a/train/cat/1.png", "a/train/dog/2.png", "b/c/d/3.png", "loose.png"):
        _write(tmp_path / name, 20, 30)
    images = read_images(tmp_path)
    assert images.names == ("cat", "dog")
    assert images.labels == (0, 1, UNKNOWN, UNKNOWN)
    assert {tuple(pixels.shape) for pixels in images.pixels} == {(3, 20, 30)}
    assert read_images(tmp_path / "a/train").names == ("cat", "dog")


def test_folders_without_images_raise_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "missing")


def test_batches_have_different_sizes_and_similar_pixel_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = []
    for _ in range(12):
        batch, labels = make_batch(_images(), 16, generator)
        assert labels.shape == batch.shape[:1]
        assert bool(torch.isfinite(batch).all())
        assert float(batch.std()) > 0.1
        shapes.append(tuple(batch.shape))
    assert len({shape[2:] for shape in shapes}) > 4
    assert all(h % 32 == 0 and w % 32 == 0 for *_, h, w in shapes)
    pixels = [b * h * w / (16 * 128 * 128) for b, _, h, w in shapes]
    assert 0.8 < min(pixels) <= max(pixels) < 1.25


def test_crops_of_tiny_and_narrow_images() -> None:
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((5, 5), (3, 400), (1, 1))]
    generator = torch.Generator().manual_seed(1)
    batch, labels = make_batch(_unlabelled(images), 8, generator, single_size=True)
    assert labels.tolist() == [UNKNOWN] * 8
    assert batch.shape == (8, 3, 128, 128)
    assert bool(torch.isfinite(batch).all())


def test_explained_equals_a_plain_loop() -> None:
    torch.manual_seed(0)
    maps, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pairs = zip(maps.flatten().tolist(), target.flatten().tolist(), strict=True)
    residual = sum((z - t) ** 2 for z, t in pairs)
    spread = sum(float(((c - c.mean()) ** 2).sum()) for c in target.transpose(0, 1))
    assert float(explained(maps, target)) == pytest.approx(1 - residual / spread, rel=1e-4)


def test_cells_of_teacher_and_student_agree(lite2: Path) -> None:
    network = load_backbone("lite2", lite2)
    torch.manual_seed(1)
    images = torch.rand(1, 3, 512, 544)
    with torch.inference_mode():
        plain = network(images)
    # The first cell of the teacher at stride 32 is centred at 31.5: without 31 rows and columns, it is the
    # student's, and so are the cells of the other strides that are centred there.
    mean, std = (torch.tensor(v)[:, None, None] for v in (BuiltinNet.MEAN, BuiltinNet.STD))
    cut = (images[..., 31:, 31:][..., :448, :480] - mean) / std
    taught = load_teacher(lite2, torch.device("cpu"))(cut)
    student = BuiltinNet()(cut)
    assert [m.shape for m in taught] == [m.shape for m in student]
    for ours, theirs, layer, stride in zip(taught, plain, network.layers, BuiltinNet.STRIDES, strict=True):
        first = round((31.5 - layer.grid.first) / stride)
        cells = tuple(slice(n // 2 - 1, n // 2 + 2) for n in ours.shape[2:])  # far from the borders
        aligned, shifted = (
            float((ours[..., *cells] - theirs[..., k:, k:][..., *cells]).square().mean())
            for k in (first, first + 1)
        )
        # Fields of view of the deepest layer reach the borders, where the padding differs.
        assert aligned < 0.25 * shifted, stride


def test_saved_weights_predict_the_units_of_the_teacher(tmp_path: Path) -> None:
    run = start(_small(tmp_path), _images(), _fake_teacher)
    save(run)
    images = make_batch(_images(), 2, torch.Generator().manual_seed(2), single_size=True)[0]
    with torch.inference_mode():
        found = load_builtin(run.recipe.out)(images)
        for ours, own, (mean, spread) in zip(found, run.average(images), run.scales, strict=True):
            expected = own * spread[:, None, None] + mean[:, None, None]
            torch.testing.assert_close(ours, expected, rtol=2e-2, atol=2e-2 * float(expected.std()))


def test_a_run_starts_from_folded_weights_of_another_version(tmp_path: Path) -> None:
    torch.manual_seed(4)
    old = BuiltinNet(version=1)
    path = tmp_path / "old.safetensors"
    save_file({name: t.contiguous() for name, t in old.state_dict().items()}, path)
    run = start(_small(tmp_path, start=path), _images(), _fake_teacher)
    generator = torch.Generator().manual_seed(run.recipe.seed)
    images = make_batch(_images(), run.recipe.batch, generator, single_size=True)[0]
    with torch.inference_mode():
        # In training, the normalisation uses the statistics of the batch, with which it has no effect.
        torch.testing.assert_close(run.net.fine(images), old.fine(images), rtol=1e-3, atol=1e-4)


def test_orthogonalised_kernels_have_singular_values_near_1() -> None:
    torch.manual_seed(0)
    for shape in ((32, 3, 3, 3), (64, 16, 1, 1), (16, 64, 3, 3), (1, 5), (8, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape) * 7).flatten(1))
        assert float(values.max()) < 1.3
        assert float(values.median()) > 0.6
    assert bool((orthogonalise(torch.zeros(4, 4)) == 0).all())


def test_muon_skips_kernels_without_a_gradient() -> None:
    kernels = [torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
    kernels[0].grad = torch.eye(3, 4)
    Muon(kernels, decay=0.5).step(0.1)
    assert torch.equal(kernels[1], torch.ones(3, 4))
    # Decay multiplies by 1 - 0.1 * 0.5; the diagonal also changes by about the learning rate.
    assert float(kernels[0].detach()[0, 1]) == pytest.approx(0.95)
    assert float(kernels[0].detach()[1, 1]) == pytest.approx(0.95 - 0.1, abs=0.03)


def _train(run: Run, count: int, teacher: Teacher | None = _fake_teacher) -> list[float]:
    losses = []
    for example in examples(run, _images(), teacher):
        if len(losses) == count:
            break
        losses.append(float(train_step(run, example)[0]))
    return losses


def test_training_reduces_the_loss(tmp_path: Path) -> None:
    recipe = _small(tmp_path, steps=30, chunk=1, repeats=30, batch=4)
    run = start(recipe, _images(), _fake_teacher)
    losses = _train(run, 14)
    assert losses[-1] < 0.8 * losses[0]
    assert run.step == 14
    assert run.head is None


def test_labels_alone_reduce_the_loss(tmp_path: Path) -> None:
    run = start(_small(tmp_path, steps=30, chunk=1, repeats=30, batch=4), _images(), None)
    losses = _train(run, 6, None)
    assert losses[-1] < 0.7 * losses[0]


def test_the_classification_loss_is_added_to_distillation(tmp_path: Path) -> None:
    losses = [
        _train(start(_small(tmp_path, labels=w), _images(), _fake_teacher), 1)[0] for w in (0.0, 0.5, 1.0)
    ]
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


def test_neither_classes_nor_teacher_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class folders"):
        start(_small(tmp_path), _unlabelled([torch.zeros(3, 40, 40, dtype=torch.uint8)]), None)


@pytest.mark.parametrize("labels", [0.0, 0.3])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, labels: float) -> None:
    recipe = _small(tmp_path, labels=labels)
    whole = start(recipe, _images(), _fake_teacher)
    uninterrupted = _train(whole, 6)
    # Step 3 is inside a chunk, so the order within the chunk must be restored too.
    half = start(recipe, _images(), _fake_teacher)
    first = _train(half, 3)
    save(half)
    resumed = start(replace(recipe, resume=True), _images(), _fake_teacher)
    assert resumed.step == 3
    rest = _train(resumed, 3)
    assert first + rest == uninterrupted
    for name in ("net", "average"):
        expected = getattr(whole, name).state_dict()
        for key, tensor in getattr(resumed, name).state_dict().items():
            assert torch.equal(tensor, expected[key]), key


def test_a_checkpoint_of_another_recipe_raises_a_user_error(tmp_path: Path) -> None:
    save(start(_small(tmp_path), _images(), _fake_teacher))
    with pytest.raises(UserError, match="a checkpoint of this recipe"):
        start(_small(tmp_path, labels=1.0, resume=True), _images(), _fake_teacher)


def test_the_learning_rate_increases_if_a_run_is_made_longer(tmp_path: Path) -> None:
    run = start(_small(tmp_path, steps=30), _images(), _fake_teacher)
    run.step = 30
    save(run)
    assert run.share_of_rate() == pytest.approx(0.01)
    longer = start(_small(tmp_path, steps=60, resume=True), _images(), _fake_teacher)
    assert longer.share_of_rate() == pytest.approx(0.505)
    assert longer.progress() == 0.5


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    other = start(_small(tmp_path), _images(), _fake_teacher)
    _train(other, 3)
    save(other)
    recipe = _small(
        tmp_path, out=tmp_path / "b.safetensors", labels=0.1, start=tmp_path / "net.checkpoint.safetensors"
    )
    run = start(recipe, _images(), _fake_teacher)
    assert (run.step, run.seconds) == (0, 0.0)
    assert run.head is not None
    for module in ("net", "average"):
        expected = getattr(other, module).state_dict()
        assert all(torch.equal(t, expected[name]) for name, t in getattr(run, module).state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(run.scales, other.scales, strict=True))
    assert _train(run, 1)[0] > 0


def test_an_invalid_start_raises_a_user_error(tmp_path: Path) -> None:
    other = save_bytes({"weight": torch.zeros(1)})
    for content in (None, b"nothing", other):
        path = tmp_path / "start.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint or folded|such file"):
            start(_small(tmp_path, start=path), _images(), _fake_teacher)


def test_resuming_a_finished_run_makes_no_steps(tmp_path: Path, lite2: Path) -> None:
    _write(tmp_path / "1.png")
    recipe = _small(tmp_path, teacher=lite2, steps=1)
    pretrain(recipe)
    assert pretrain(replace(recipe, resume=True)).step == 1


def test_resuming_without_a_checkpoint_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint"):
        start(_small(tmp_path, resume=True), _images(), _fake_teacher)


def test_a_run_writes_weights_log_and_checkpoint(
    tmp_path: Path, lite2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        _write(tmp_path / f"data/{number}.png", seed=number)
    out = tmp_path / "out/net.safetensors"
    flags = [
        "--steps",
        "20",
        "--chunk",
        "1",
        "--batch",
        "2",
        "--repeats",
        "20",
        "--single-size",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(
        "sys.argv",
        [
            "pretrain",
            "--data",
            str(tmp_path / "data"),
            "--out",
            str(out),
            "--teacher",
            str(lite2),
            *flags,
        ],
    )
    recipe_module.main()
    assert {path.name for path in out.parent.iterdir()} == {
        "net.safetensors", "net.checkpoint.safetensors", "net.log.jsonl",
    }  # fmt: skip
    line = json.loads((out.parent / "net.log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 20
    assert line["loss"] > 0
    assert "min left" in capsys.readouterr().err
    with torch.inference_mode():
        assert load_builtin(out)(torch.zeros(1, 3, 40, 50))[0].shape == (1, BuiltinNet.CHANNELS[0], 5, 7)


def test_a_missing_teacher_prints_one_line_and_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "1.png")
    missing = str(tmp_path / "none.safetensors")
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "o.safetensors"), "--teacher", missing]
    monkeypatch.setattr("sys.argv", ["pretrain", *arguments])
    with pytest.raises(SystemExit) as stopped:
        recipe_module.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_weights_are_the_running_average(tmp_path: Path, lite2: Path) -> None:
    _write(tmp_path / "1.png")
    run = pretrain(_small(tmp_path, teacher=lite2, steps=2))
    written = load_file(tmp_path / "net.safetensors")
    expected = in_units(run.average.fold(), run.scales).state_dict()
    assert all(torch.equal(tensor, expected[name].half()) for name, tensor in written.items())
