from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.cli import videos
from sppnet.cli.outputs import PredictionFolder
from sppnet.data import video
from sppnet.data.video import Frame, VideoReader, VideoWriter
from sppnet.errors import UserError
from sppnet.recipes.demo_data import DemoSets

pytest.importorskip("av")


@pytest.fixture
def film(sets: DemoSets, tmp_path: Path) -> Path:
    path = tmp_path / "in" / "film.mp4"
    path.parent.mkdir()
    with Image.open(next(sets.new.glob("*.jpg"))) as image:
        pixels = np.asarray(image.convert("RGB"))[:160, :240]
    with VideoWriter(path, Fraction(10)) as writer:
        for shift in range(5):
            writer.write(np.roll(pixels, shift * 8, axis=1))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_video_and_an_image_together(
    shell, sets: DemoSets, detector_run: Path, film: Path, tmp_path: Path
) -> None:
    out, image = tmp_path / "out", next(sets.new.glob("*.jpg"))
    said = shell(
        "predict", detector_run, film, image, "--out", out, "--every", 2, "--threshold", 0.1, "--json"
    )
    assert said.code == 0
    assert [Path(one["path"]).name for one in said.document["images"]] == [image.name]
    (video,) = said.document["videos"]
    assert (video["path"], video["frames"]) == (str(film), 3)
    found = lines(out / "film.jsonl")
    assert [line["frame"] for line in found] == [0, 2, 4]
    assert [line["seconds"] for line in found] == pytest.approx([0, 0.2, 0.4])
    assert all({"path", "height", "width", "detections"} <= set(line) for line in found)
    with VideoReader(out / "film.mp4") as frames:
        assert frames.rate == 5
        assert len(list(frames)) == 3


def test_a_classifier_and_the_names_of_files(shell, classifier_run: Path, film: Path, tmp_path: Path) -> None:
    # OUT is the folder of the video itself, and a file of lines is there already.
    mine = film.with_name("film-2.jsonl")
    mine.write_text("mine")
    before = film.read_bytes()
    for _ in range(2):
        said = shell("predict", classifier_run, f"{film.parent}/*.mp4", "--out", film.parent, "--json")
        assert said.code == 0
        assert next(Path(one["drawn"]).name for one in said.document["videos"]) == "film-3.mp4"
        film.with_name("film-3.mp4").rename(tmp_path / "film-3.mp4")
    assert film.read_bytes() == before
    assert mine.read_text() == "mine"
    assert len(lines(film.with_name("film-3.jsonl"))) == 5
    assert not film.with_name("film-4.jsonl").exists()


def test_mistakes_and_damaged_videos(
    shell, refused, classifier_run: Path, film: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "--every" in refused("predict", classifier_run, film, "--every", 0, "--out", out)
    assert "--allow-download" in refused("predict", classifier_run, "http://127.0.0.1/a.mp4", "--out", out)
    film.with_name("half.mp4").write_bytes(film.read_bytes()[:2000])
    said = shell("predict", classifier_run, film.with_name("half.mp4"), film, "--out", out, "--json")
    assert said.code == 2
    assert [Path(one["path"]).name for one in said.document["failed"]] == ["half.mp4"]
    assert [Path(one["path"]).name for one in said.document["videos"]] == ["film.mp4"]
    assert not (out / "half.jsonl").exists()
    assert "none.mp4" in shell("predict", classifier_run, tmp_path / "none.mp4", "--out", out).err


class Camera:
    """Three frames, then what a camera does when the program is interrupted."""

    rate, count = Fraction(25), None

    def __init__(self, source: str, every: int, end: BaseException) -> None:
        self.source = source
        self.end = end

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self):
        for number in range(3):
            yield Frame(number, None, np.full((40, 60, 3), 50 * number, np.uint8))
        raise self.end


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UserError("camera:0", "a video that decodes", "noise")])
def test_a_camera_is_read_until_it_ends(
    end: BaseException, classifier_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sppnet.classify import Classifier

    monkeypatch.setattr(video, "VideoReader", lambda source, every: Camera(source, every, end))
    folder = PredictionFolder(tmp_path, {})
    written, failed = videos.predict_videos(Classifier.load(classifier_run), ["camera:0"], folder)
    assert [one["frames"] for one in written] == [3]
    assert (list(failed) == [Path("camera:0")]) == isinstance(end, UserError)
    assert [line["frame"] for line in lines(tmp_path / "camera-0.jsonl")] == [0, 1, 2]
    with VideoReader(tmp_path / "camera-0.mp4") as frames:
        assert len(list(frames)) == 3


def test_an_interrupted_file_keeps_its_lines(
    classifier_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sppnet.classify import Classifier

    monkeypatch.setattr(
        video, "VideoReader", lambda source, every: Camera(source, every, KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        videos.predict_videos(Classifier.load(classifier_run), ["a.mp4"], PredictionFolder(tmp_path, {}))
    assert len(lines(tmp_path / "a.jsonl")) == 3
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.jsonl", "predictions.jsonl", ".sppnet-predictions.jsonl"}


def test_drawn_videos_are_no_sources_and_files_of_the_user_stay(
    shell, refused, classifier_run: Path, film: Path
) -> None:
    folder = film.parent
    (folder / "film.jsonl").symlink_to(folder.parent / "victim")  # to nowhere: not written through
    for _ in range(2):
        said = shell("predict", classifier_run, f"{folder}/*.mp4", "--out", folder, "--json")
        assert said.code == 0
        assert [Path(one["path"]).name for one in said.document["videos"]] == ["film.mp4"]
        assert [Path(one["drawn"]).name for one in said.document["videos"]] == ["film-2.mp4"]
    assert not (folder.parent / "victim").exists()
    assert "only outputs" in refused("predict", classifier_run, folder / "film-2.mp4", "--out", folder)
    (folder / "film-2.mp4").write_bytes(film.read_bytes())  # the user's from now on
    said = shell("predict", classifier_run, film, "--out", folder, "--json")
    assert [Path(one["drawn"]).name for one in said.document["videos"]] == ["film-3.mp4"]
    assert (folder / "film-2.mp4").read_bytes() == film.read_bytes()


def test_a_video_with_a_long_and_odd_name(shell, classifier_run: Path, film: Path, tmp_path: Path) -> None:
    odd = film.with_name("a\x1b[31m" + "x" * 240 + ".mp4")
    film.rename(odd)
    said = shell("predict", classifier_run, odd, "--out", tmp_path / "out", "--json")
    assert said.code == 0
    drawn = Path(said.document["videos"][0]["drawn"])
    assert drawn.exists()
    assert "\x1b" not in drawn.name


def test_an_interrupted_video_is_predicted_again_under_its_name(
    shell, classifier_run: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", classifier_run, film, "--out", tmp_path / "out")

    def killed(path: Path, text: str) -> None:
        path.touch()  # the file is created before its content is written
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(videos, "append_line", killed)
        assert shell(*words).code == 130
    assert shell(*words).code == 0
    names = {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert names == {"film.mp4", "film.jsonl", "predictions.json", "predictions.jsonl"}
