"""What `sppnet predict` does to the folder that it writes; a stub takes the place of the network."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stub_detector import StubDetector, stub_run

from sppnet.cli import main
from sppnet.cli.outputs import LINES, free_names
from sppnet.data import find_images, read_csv_text
from sppnet.data.search import OUTPUT_MARK
from sppnet.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs names that are not UTF-8")


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> StubDetector:
    stub = StubDetector()
    monkeypatch.setattr("sppnet.estimators.load", lambda run, device: stub)
    return stub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return stub_run(tmp_path / "run")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.png", "C.JPG")):
        Image.new("RGB", (40, 30), (number * 40, 9, 9)).save(folder / name)
    return folder


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / LINES).read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_out_where_the_images_are_loses_nothing(shell, detector, run: Path, photos: Path) -> None:
    before = contents(photos)
    found = find_images([photos])
    for _ in range(2):
        said = shell("predict", run, photos, "--out", photos, "--json")
        assert said.code == 0
        assert [Path(one["path"]) for one in said.document["images"]] == found
        after = contents(photos)
        assert {name: after[name] for name in before} == before
        assert find_images([photos]) == found
    assert len(detector.seen) == 3
    # The shell writes out a glob; what was drawn is no source then either.
    said = shell("predict", run, *sorted(photos.glob("*.jpg")), "--out", photos, "--json")
    assert [Path(one["path"]).name for one in said.document["images"]] == ["a.jpg"]


@pytest.mark.parametrize("name", ["predictions.json", "predictions.jsonl", "predictions.csv"])
def test_files_of_the_user_are_never_replaced(refused, detector, run: Path, photos: Path, name: str) -> None:
    (photos / name).write_text("mine")
    assert name in refused("predict", run, photos, "--out", photos, "--formats", "csv")
    assert (photos / name).read_text() == "mine"
    refused("predict", run, photos, "--out", photos, "--formats", "csv", "--restart")
    assert (photos / name).read_text() == "mine"
    assert detector.seen == []


def test_a_drawn_image_that_the_user_replaced_is_the_users(shell, detector, run: Path, photos: Path) -> None:
    out = photos.parent / "out"
    shell("predict", run, photos / "a.jpg", "--out", out)
    Image.new("RGB", (7, 7)).save(out / "a.jpg")
    mine = (out / "a.jpg").read_bytes()
    assert shell("predict", run, photos / "a.jpg", "--out", out, "--restart").code == 0
    assert (out / "a.jpg").read_bytes() == mine
    assert (out / "a-2.jpg").exists()


def test_links_are_never_written_through(shell, refused, detector, run: Path, photos: Path) -> None:
    out, victim = photos.parent / "out", photos.parent / "victim"
    out.mkdir()
    victim.write_text("mine")
    (out / "a.jpg").symlink_to(photos / "a.jpg")
    before = contents(photos)
    assert shell("predict", run, photos, "--out", out).code == 0
    assert contents(photos) == before
    shutil.rmtree(out)
    out.mkdir()
    for name in (LINES, OUTPUT_MARK):
        (out / name).symlink_to(victim)
        refused("predict", run, photos, "--out", out)
        (out / name).unlink()
    assert victim.read_text() == "mine"


def test_a_second_call_does_what_is_missing(shell, detector, run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("predict", run, photos, "--out", out, "--formats", "csv", "coco", "--json")
    first = shell(*words)
    assert first.code == 0
    tables = [(out / name).read_bytes() for name in ("predictions.csv", "predictions.coco.json")]
    (out / "predictions.csv").unlink()
    detector.seen.clear()
    Image.new("RGB", (40, 30), "white").save(photos / "b.png")  # changed: has to be done again
    second = shell(*words)
    assert [Path(name).name for name in detector.seen] == ["b.png"]
    assert {line["path"] for line in lines(out)} == {str(path) for path in find_images([photos])}
    assert len(lines(out)) == 3
    unchanged = [one for one in first.document["images"] if not one["path"].endswith("b.png")]
    assert [one for one in second.document["images"] if not one["path"].endswith("b.png")] == unchanged
    # The numbers of a resumed call are those of the detector, not the rounded ones.
    assert (out / "predictions.csv").read_bytes() != tables[0]
    shell(*words[:3], "--out", tmp_path / "new", *words[5:])
    assert (out / "predictions.csv").read_bytes() == (tmp_path / "new" / "predictions.csv").read_bytes()


def test_another_run_or_threshold_is_refused_until_restart(
    shell, refused, detector, run: Path, photos: Path, tmp_path: Path
) -> None:
    words = ("predict", run, photos, "--out", tmp_path / "out")
    assert shell(*words).code == 0
    assert "another threshold" in refused(*words, "--threshold", 0.25)
    stub_run(run, '{"other": 1}')
    assert "--restart" in refused(*words)
    detector.seen.clear()
    assert shell(*words, "--restart").code == 0
    assert len(detector.seen) == 3
    assert len(lines(tmp_path / "out")) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_commands_never_write_to_one_folder(
    shell, refused, detector, run: Path, photos: Path, tmp_path: Path
) -> None:
    out, ready, done = tmp_path / "out", os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        # Stops within its first image, until it is killed.
        detector.before = lambda: (os.write(ready[1], b"x"), os.read(done[0], 1))
        try:
            main(["predict", str(run), str(photos), "--out", str(out)])
        finally:
            os._exit(1)
    os.read(ready[0], 1)
    assert f"in use by process {child} on" in refused("predict", run, photos, "--out", out)
    assert "in use by process" in refused("predict", run, photos, "--out", out, "--restart")
    assert detector.seen == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert shell("predict", run, photos, "--out", out).code == 0
    assert len(lines(out)) == 3
    assert not [name for name in os.listdir(out) if name.endswith((".lock", ".part"))]


def test_a_missing_folder_is_not_made_by_a_mistake(refused, detector, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("predict", run, tmp_path / "empty", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_temporary_files_of_a_killed_call_are_removed(shell, detector, run: Path, photos: Path) -> None:
    (photos / ".sppnet-0123456789abcdef.part").write_text("torn")
    (photos / ".other.part").write_text("mine")
    assert shell("predict", run, photos, "--out", photos).code == 0
    assert sorted(path.name for path in photos.glob(".*.part")) == [".other.part"]


def test_a_torn_line_is_mended(shell, detector, run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shell("predict", run, photos, "--out", out)
    whole = (out / LINES).read_bytes()
    for cut in range(0, len(whole), 97):
        (out / LINES).write_bytes(whole[:cut])
        assert shell("predict", run, photos, "--out", out).code == 0
        assert sorted(line["path"] for line in lines(out)) == sorted(map(str, find_images([photos])))


@linux
def test_odd_names_and_bad_images_lose_nothing(
    shell, detector, run: Path, photos: Path, tmp_path: Path
) -> None:
    good = [b"\xff\xfe.png", b"x" * 251 + b".png", "na\u00efve \u732b.png".encode(), b"a\x1b[31m\n.png"]
    for name in good:
        shutil.copy(photos / "b.png", os.path.join(os.fsencode(photos), name))
    (photos / "empty.png").touch()
    for _ in range(2):
        said = shell("predict", run, photos, "--out", tmp_path / "out", "--json", "--formats", "csv")
        assert said.code == 2
        assert len(said.document["images"]) == 3 + len(good)
        assert [Path(one["path"]).name for one in said.document["failed"]] == ["empty.png"]
        named = {os.fsencode(one["path"]) for one in said.document["images"]}
        assert {os.path.join(os.fsencode(photos), name) for name in good} <= named
        written = lines(tmp_path / "out")
        assert len(written) == len({line["path"] for line in written}) == 4 + len(good)
        assert [Path(line["path"]).name for line in written if "error" in line] == ["empty.png"]
        assert "\x1b" not in said.err
    assert len({line["drawn"] for line in written if "drawn" in line}) == 3 + len(good)
    table = shell("predict", run, photos, "--out", tmp_path / "out").out
    assert "\x1b[31m" not in table


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_failures_of_the_disk_are_one_line_and_resumed(
    shell, detector, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out, real, calls = tmp_path / "out", os.replace, [0]

    def failing(source: object, target: object) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(number, os.strerror(number))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        said = shell("predict", run, photos, "--out", out)
    assert said.code == 2
    assert [line for line in said.err.splitlines() if os.strerror(number) in line]
    assert "Traceback" not in said.err
    done = len(lines(out))
    assert 0 < done < 3
    assert shell("predict", run, photos, "--out", out).code == 0
    assert len(lines(out)) == 3
    assert not [name for name in os.listdir(out) if name.endswith(".part")]


def test_csv_cells_that_look_like_formulas(
    shell, detector, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector.names_ = ("=cmd|' /C calc'!A0", "@SUM(A1)")
    (photos / "=1+1.png").write_bytes((photos / "b.png").read_bytes())
    monkeypatch.chdir(photos)
    assert shell("predict", run, "=1+1.png", "b.png", "--out", tmp_path / "o", "--formats", "csv").code == 0
    with (tmp_path / "o" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row[column][0] not in "=+-@\t\r" for row in rows for column in ("image", "name"))
    assert [read_csv_text(row["image"]) for row in rows] == ["=1+1.png", "b.png"]
    assert {read_csv_text(row["name"]) for row in rows} <= set(detector.names_)


def test_coco_results_carry_the_ids_of_the_data_set(shell, detector, run: Path, tmp_path: Path) -> None:
    data = tmp_path / "coco"
    (data / "images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 48), (9, 9, ord(name[0]))).save(data / "images" / name)
    images = [{"id": 101, "file_name": "a.jpg"}, {"id": "t-205", "file_name": "images\\b.jpg"}]
    categories = [{"id": 0, "name": "project"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    document = {"images": images, "annotations": [], "categories": categories}
    (data / "ids.json").write_text(json.dumps(document))
    detector.category_ids_ = (1, 2)  # of another data set: those of the file count
    for source, flags in ((data, ()), (data / "images", ("--images", data / "ids.json"))):
        out = tmp_path / f"out{len(flags)}"
        assert shell("predict", run, source, "--out", out, "--formats", "coco", *flags).code == 0
        rows = json.loads((out / "predictions.coco.json").read_text())
        assert [row["image_id"] for row in rows] == [101, "t-205"]
        assert {row["category_id"] for row in rows} <= {3, 9}


def test_the_limit_of_megapixels(shell, detector, run: Path, photos: Path, tmp_path: Path) -> None:
    words = ("predict", run, photos / "b.png", "--out", tmp_path / "o", "--max-megapixels")
    said = shell(*words, 0.001)
    assert said.code == 2
    assert "at most 1,000 pixels, got 40 x 30 = 1,200" in said.err
    assert shell(*words, 0.0012).code == 0
    assert "SPPNET_MAX_MEGAPIXELS" not in os.environ


NAME = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300)


@given(st.lists(NAME, max_size=8), st.lists(NAME, max_size=4))
@settings(deadline=None, max_examples=200)
def test_free_names_are_free_short_and_harmless(stems: list[str], taken: list[str]) -> None:
    paths = [Path(str(i)) / f"{stem}.png" for i, stem in enumerate(stems)]
    names = list(free_names(paths, taken).values())
    folded = [name.casefold() for name in names]
    assert len(set(folded)) == len(names) == len(paths)
    assert not set(folded) & {name.casefold() for name in taken}
    assert all(len(os.fsencode(name)) <= 255 and "/" not in name for name in names)
    assert all(name.encode() and "\x1b" not in name for name in names)


def test_drawing_large_arrays_of_sources_keeps_their_order(detector: StubDetector) -> None:
    sources = [np.full((5, 6, 3), value, np.uint8) for value in (0, 100, 200)]
    found = [result.scores.item() for result in detector.predict_iter(iter(sources))]
    assert found == sorted(found)
    assert len(set(found)) == 3


@pytest.mark.parametrize("threshold", ["nan", "-0.5", "1.5", "inf"])
def test_a_threshold_that_is_no_probability_is_refused(
    refused, detector, run: Path, photos: Path, threshold: str
) -> None:
    out = photos.parent / "out"
    said = refused("predict", run, photos, "--out", out, "--threshold", threshold)
    assert "threshold: expected a number from 0 to 1" in said
    assert not out.exists()
    with pytest.raises(UserError, match="from 0 to 1"):
        detector.predict(photos / "a.jpg", threshold=float(threshold))
    with pytest.raises(UserError, match="from 0 to 1"):
        detector.predict_iter([photos / "a.jpg"], threshold=float(threshold))


def test_folders_that_link_to_each_other(shell, detector, run: Path, photos: Path) -> None:
    """Globs with ** would follow 2 to the 40th paths, or end at the system's limit of links."""
    for name in ("one", "two"):
        (photos / name).symlink_to(photos)
    (photos / ".hidden").mkdir()
    shutil.copy(photos / "a.jpg", photos / ".hidden")
    for pattern in ("**", "**/*.jpg", "**/**/*.png"):
        out = photos.parent / pattern.replace("/", "-").replace("*", "x")
        said = shell("predict", run, f"{photos}/{pattern}", "--out", out, "--json")
        names = [Path(one["path"]).name for one in said.document["images"]]
        expected = {"**": ["C.JPG", "a.jpg", "b.png"], "**/*.jpg": ["a.jpg"]}.get(pattern, ["b.png"])
        assert sorted(names) == expected
    assert shell("predict", run, f"{photos}/**/*.tif", "--out", photos.parent / "out").code == 2


def test_an_empty_value_is_not_the_current_folder(
    refused, detector, run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    before = contents(photos)
    assert "--out expects a value" in refused("predict", run, photos, "--out", "")
    assert "--out expects a value" in refused("predict", run, photos, "--out=")
    assert contents(photos) == before
