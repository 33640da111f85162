from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet import FeatureExtractor
from sppnet.errors import UserError
from sppnet.features.bulk import write_features
from sppnet.locks import locked_file

BROKEN = 2


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor("builtin", layers=("stride8",), levels=(2, 1), device="cpu").fit()


def write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    paths = [folder / f"{n:04d}.png" for n in range(count)]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (*draw.integers(20, 40, 2), 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = write_images(tmp_path_factory.mktemp("images"), 6)
    paths[BROKEN].write_bytes(b"no image")
    return paths


@pytest.fixture
def boxes(images) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    table: dict[str, torch.Tensor] = {}
    for number, path in enumerate(images[:-1]):  # the last image has no entry
        low = torch.rand(number, 2, generator=draw) * 10
        table[path.name] = torch.cat([low, low + 1 + torch.rand(number, 2, generator=draw) * 20], 1)
    return table


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_per_image_and_a_table_of_failures(extractor, images, tmp_path: Path) -> None:
    result = write_features(extractor, images, tmp_path / "f.npy", quiet=True)
    good = [path for number, path in enumerate(images) if number != BROKEN]
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), extractor.images(good))
    assert [line["image"] for line in lines(result.index)] == [str(path) for path in good]
    for line in lines(result.index):
        with Image.open(line["image"]) as image:
            assert image.size == (line["width"], line["height"])
    assert (result.images, result.rows, result.length) == (5, 5, extractor.n_features_out_)
    assert lines(result.failed) == [{"image": str(images[BROKEN]), "error": result.failures[0][1]}]
    assert set(contents(tmp_path)) == {
        "f.npy", "f.npy.failed.jsonl", "f.npy.index.jsonl", "f.npy.job.json"
    }  # fmt: skip


def test_a_row_per_box(extractor, images, boxes, tmp_path: Path) -> None:
    result = write_features(extractor, images, tmp_path / "f.npy", boxes, quiet=True)
    rows, index = np.load(tmp_path / "f.npy"), lines(result.index)
    assert len(rows) == len(index) == result.rows == 0 + 1 + 3 + 4
    assert [Path(path) for path, _ in result.failures] == [images[BROKEN], images[-1]]
    for number in (1, 3, 4):
        mine = [n for n, line in enumerate(index) if line["image"] == str(images[number])]
        stored = [index[n]["box"] for n in mine]
        assert len(stored) == number
        with Image.open(images[number]) as image:
            limit = torch.tensor([*image.size, *image.size])
        torch.testing.assert_close(torch.tensor(stored), torch.minimum(boxes[images[number].name], limit))
        expected = extractor.boxes(images[number], stored)
        np.testing.assert_allclose(rows[mine], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_holds_the_same(images, boxes, dtype, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    ours = FeatureExtractor("builtin", layers=("stride8",), levels=(1,), dtype=dtype, device="cpu")
    for table, name in ((None, "whole"), (boxes, "boxes")):
        plain = write_features(ours, images, tmp_path / f"{name}.npy", table, quiet=True)
        result = write_features(ours, images, tmp_path / f"{name}.parquet", table, quiet=True)
        found = parquet.read_table(result.out)
        assert result.index is None
        assert result.failures == plain.failures
        rows = np.array(found["features"].to_pylist(), dtype=dtype).reshape(-1, ours.n_features_out_)
        np.testing.assert_array_equal(rows, np.load(plain.out))
        index = lines(plain.index)
        for column in ("image", "height", "width"):
            assert found[column].to_pylist() == [line[column] for line in index]
        if table is not None:
            sides = [found[side].to_pylist() for side in ("x0", "y0", "x1", "y1")]
            np.testing.assert_array_equal(np.array(sides, np.float32).T, [line["box"] for line in index])


@pytest.mark.parametrize("name", ["f.npy", "f.parquet"])
def test_parts_leave_no_trace_in_the_files(
    extractor, images, boxes, name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sppnet.features.tables._GROUP_ROWS", 3)
    for folder, seconds in (("one", 1e9), ("many", 0.0)):
        (tmp_path / folder).mkdir()
        out = tmp_path / folder / name
        write_features(extractor, images, out, boxes, checkpoint_seconds=seconds, quiet=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


class Interruption:
    """Ends the program at the n-th renaming of a file, just before it or just after."""

    def __init__(self, count: int, *, after: bool) -> None:
        self.left = count
        self.after = after
        self.replace = os.replace

    def __call__(self, source, target) -> None:
        self.left -= 1
        if self.left or self.after:
            self.replace(source, target)
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
def test_interrupted_anywhere_it_ends_the_same(
    extractor, images, after, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    write_features(extractor, images, tmp_path / "whole" / "f.npy", checkpoint_seconds=0, quiet=True)
    interruptions = 0
    while True:
        folder = tmp_path / f"at-{interruptions + 1}"
        folder.mkdir()
        monkeypatch.setattr(os, "replace", Interruption(interruptions + 1, after=after))
        try:
            write_features(extractor, images, folder / "f.npy", checkpoint_seconds=0, quiet=True)
            break
        except KeyboardInterrupt:
            interruptions += 1
        finally:
            monkeypatch.undo()
        write_features(extractor, images, folder / "f.npy", checkpoint_seconds=0, quiet=True)
        assert contents(folder) == contents(tmp_path / "whole")
    # The job, a part for each image, three files and the job again.
    assert interruptions == 1 + len(images) + 3 + 1


def test_a_damaged_part_is_computed_again(
    extractor, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_features(extractor, images, tmp_path / "whole.npy", quiet=True).out.read_bytes()
    monkeypatch.setattr(os, "replace", Interruption(6, after=True))
    with pytest.raises(KeyboardInterrupt):
        write_features(extractor, images, tmp_path / "f.npy", checkpoint_seconds=0, quiet=True)
    monkeypatch.undo()
    parts = sorted((tmp_path / "f.npy.parts").glob("*.safetensors"))
    assert len(parts) == 5
    parts[1].write_bytes(parts[1].read_bytes()[:40])
    assert write_features(extractor, images, tmp_path / "f.npy", quiet=True).out.read_bytes() == whole


def test_the_same_call_again_does_nothing(extractor, images, tmp_path: Path) -> None:
    first = write_features(extractor, images, tmp_path / "f.npy", quiet=True)
    before = (tmp_path / "f.npy").stat().st_mtime_ns
    assert write_features(extractor, images, tmp_path / "f.npy", quiet=True) == first
    assert (tmp_path / "f.npy").stat().st_mtime_ns == before


def test_another_job_is_refused_unless_it_may_overwrite(
    extractor, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.npy"
    other = FeatureExtractor("builtin", layers=("stride8",), levels=(1,), device="cpu")
    monkeypatch.setattr(os, "replace", Interruption(4, after=True))
    with pytest.raises(KeyboardInterrupt):
        write_features(extractor, images, out, checkpoint_seconds=0, quiet=True)
    monkeypatch.undo()
    kept = {p.name: p.read_bytes() for p in (tmp_path / "f.npy.parts").iterdir()}
    for changed in (
        lambda: write_features(other, images, out),
        lambda: write_features(extractor, images[1:], out),
    ):
        with pytest.raises(UserError, match="overwrite to start over"):
            changed()
    assert kept == {p.name: p.read_bytes() for p in (tmp_path / "f.npy.parts").iterdir()}
    write_features(extractor, images, out, quiet=True)
    with pytest.raises(UserError, match="Choose another name"):
        write_features(other, images, out)
    assert write_features(other, images, out, overwrite=True, quiet=True).length == other.n_features_out_
    assert np.load(out).shape == (5, other.n_features_out_)


def test_overwriting_goes_on_where_an_interrupted_one_ended(
    extractor, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.npy"
    write_features(FeatureExtractor(layers=("stride8",), levels=(1,), device="cpu"), images, out, quiet=True)
    monkeypatch.setattr(os, "replace", Interruption(6, after=True))
    with pytest.raises(KeyboardInterrupt):
        write_features(extractor, images, out, overwrite=True, checkpoint_seconds=0, quiet=True)
    monkeypatch.undo()
    modified = (tmp_path / "f.npy.parts" / "000000000000.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(os, "replace", Interruption(1, after=True))  # the next part
    with pytest.raises(KeyboardInterrupt):
        write_features(extractor, images, out, overwrite=True, checkpoint_seconds=0, quiet=True)
    monkeypatch.undo()
    assert (tmp_path / "f.npy.parts" / "000000000000.safetensors").stat().st_mtime_ns == modified
    write_features(extractor, images, out, overwrite=True, quiet=True)
    assert np.load(out).shape == (5, extractor.n_features_out_)


def test_changed_images_are_another_job(extractor, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 2)
    write_features(extractor, paths, tmp_path / "f.npy", quiet=True)
    os.utime(paths[0], ns=(1, 1))
    with pytest.raises(UserError, match="another"):
        write_features(extractor, paths, tmp_path / "f.npy", quiet=True)


def test_foreign_files_stay(extractor, images, tmp_path: Path) -> None:
    (tmp_path / "f.npy").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"f\.npy: expected a new file"):
        write_features(extractor, images, tmp_path / "f.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "g.npy.parts").touch()
    for out, expected in (
        ("f.csv", "ends in"),
        ("folder.npy", "a folder"),
        ("file/f.npy", "can be written"),
        ("g.npy", "a folder of parts"),
        ("n" * 250 + ".npy", "can be written"),
        ("n" * 245 + ".npy", "can be written"),  # with .failed.jsonl too long
        ("f\0.npy", "can be written"),
    ):
        with pytest.raises(UserError, match=expected):
            write_features(extractor, images, tmp_path / out)
    assert set(contents(tmp_path / "folder.npy")) == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npy", "file", "folder.npy", "g.npy.parts"]
    for seconds in (-1, float("nan")):
        with pytest.raises(UserError, match="checkpoint_seconds"):
            write_features(extractor, images, tmp_path / "h.npy", checkpoint_seconds=seconds)
    assert (tmp_path / "f.npy").read_bytes() == b"mine"


def test_foreign_files_beside_it_and_in_its_folder_stay(extractor, images, tmp_path: Path) -> None:
    for name in ("f.npy.index.jsonl", "f.npy.failed.jsonl", "f.npy.job.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=r"f\.npy: expected a new file"):
            write_features(extractor, images, tmp_path / "f.npy")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    parts = tmp_path / "f.npy.parts"
    parts.mkdir()
    mine = {"notes.txt": b"mine", "weights.safetensors.bak": b"mine"}
    for name, content in mine.items():
        (parts / name).write_bytes(content)
    write_features(extractor, images, tmp_path / "f.npy", checkpoint_seconds=0, quiet=True)
    assert contents(parts) == mine


def test_links_are_not_written_through(extractor, images, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "f.npy.parts").mkdir()
    for name in ("f.npy", "f.npy.job.json", "f.npy.parts/job.json", "f.npy.parts/000000000000"):
        (tmp_path / f"{name}.part").symlink_to(victim)
    write_features(extractor, images, tmp_path / "f.npy", checkpoint_seconds=0, quiet=True)
    assert victim.read_text() == "mine"


def test_two_processes_never_write_one_file(extractor, images, tmp_path: Path) -> None:
    with locked_file(tmp_path / "f.npy"):
        with ThreadPoolExecutor(1) as other:
            call = other.submit(write_features, extractor, images, tmp_path / "f.npy", quiet=True)
            with pytest.raises(UserError, match="in use by another thread"):
                call.result()
        write_features(extractor, images, tmp_path / "g.npy", quiet=True)
    write_features(extractor, images, tmp_path / "f.npy", quiet=True)


def test_names_that_are_no_unicode(extractor, images, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \n.png")
    try:
        Path(name).write_bytes(images[0].read_bytes())
        Path(name + "x").touch()
    except OSError:
        pytest.skip("the file system takes Unicode only")
    for out in ("f.npy", "f.parquet"):
        result = write_features(extractor, [Path(name), Path(name + "x")], tmp_path / out, quiet=True)
        assert (result.images, len(result.failures)) == (1, 1)
        assert lines(result.failed)[0]["image"].endswith("caf\\udce9 \n.pngx")


def test_no_image_at_all_is_an_empty_file(extractor, images, tmp_path: Path) -> None:
    result = write_features(extractor, [images[BROKEN]], tmp_path / "f.npy", quiet=True)
    assert np.load(result.out).shape == (0, extractor.n_features_out_)
    assert len(result.failures) == 1


def extract_in_child(images: list[Path], out: Path, last: int) -> None:
    """Extract, and kill the process by SIGKILL when a part up to image ``last`` is on disk."""
    real = os.replace

    def replace(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        real(source, target)
        path = Path(target)
        if path.suffix == ".safetensors" and int(path.stem) >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    ours = FeatureExtractor("builtin", layers=("stride8",), levels=(2, 1), device="cpu")
    write_features(ours, images, out, checkpoint_seconds=0.05, quiet=True)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_killed_three_times_it_ends_the_same(extractor, count, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", count)
    images[count // 2].write_bytes(b"no image")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sppnet.features.bulk", "sppnet.features.extractor"])
    out = tmp_path / "killed" / "f.npy"
    for share in (0.2, 0.4, 0.6):
        child = context.Process(target=extract_in_child, args=(images, out, int(share * count)))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not out.exists()
    write_features(extractor, images, out, quiet=True)
    (tmp_path / "whole").mkdir()
    write_features(extractor, images, tmp_path / "whole" / "f.npy", quiet=True)
    assert contents(out.parent) == contents(tmp_path / "whole")
    assert len(np.load(out)) == count - 1
