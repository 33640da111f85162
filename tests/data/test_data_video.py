from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sppnet.data.video import VideoReader, VideoWriter, camera_input
from sppnet.errors import MissingExtraError, UserError
from sppnet.inputs.sources import is_camera, is_video

av = pytest.importorskip("av")

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (120, 120, 120)]


def plain(colour: tuple[int, int, int], height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "v.mp4", Fraction(10)) as writer:
        for colour in COLOURS:
            writer.write(plain(colour))
    return tmp_path / "v.mp4"


def read(path: Path, every: int = 1):
    with VideoReader(path, every) as frames:
        return list(frames)


def test_written_frames_are_read(video: Path) -> None:
    frames = read(video)
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 10 for n in range(6)])
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        assert frame.pixels.dtype == np.uint8
        assert np.abs(frame.pixels.astype(int) - colour).max() < 12
    assert list(video.parent.iterdir()) == [video]


@pytest.mark.parametrize(("every", "numbers"), [(2, [0, 2, 4]), (4, [0, 4]), (10, [0])])
def test_every_nth_frame(video: Path, every: int, numbers: list[int]) -> None:
    assert [frame.number for frame in read(video, every)] == numbers
    with VideoReader(video, every) as frames:
        assert frames.rate == Fraction(10, every)
        assert frames.count == len(numbers)


def test_odd_and_changing_sizes_are_padded_and_cut(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", Fraction(25)) as writer:
        for height, width in ((31, 33), (40, 20), (10, 50)):
            writer.write(plain((200, 200, 200), height, width))
    frames = [frame.pixels for frame in read(tmp_path / "v.mp4")]
    assert {frame.shape for frame in frames} == {(32, 34, 3)}
    assert frames[1][:, 24:].max() < 60
    assert frames[1][:, :16].min() > 150


@pytest.mark.parametrize(
    "rate", [Fraction(30000, 1001), Fraction(1, 10), Fraction(999983, 7919), Fraction(25)]
)
def test_supported_frame_rates(tmp_path: Path, rate: Fraction) -> None:
    with VideoWriter(tmp_path / "v.mp4", rate) as writer:
        for _ in range(3):
            writer.write(plain((9, 9, 9)))
    with VideoReader(tmp_path / "v.mp4") as frames:
        assert float(frames.rate) == pytest.approx(float(rate), rel=0.01)


def test_a_rotated_video_is_read_upright(video: Path) -> None:
    # The matrix in the track header turns what is shown by 90 degrees clockwise.
    content = bytearray(video.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    video.write_bytes(content)
    with av.open(str(video)) as container:
        expected = next(container.decode(video=0))
    assert read(video)[0].pixels.shape == (64, 48, 3)
    assert expected.rotation % 360 == 270
    half = plain((20, 20, 20))
    half[:24] = 220
    with VideoWriter(video.with_name("half.mp4"), Fraction(10)) as writer:
        writer.write(half)
    content = bytearray(video.with_name("half.mp4").read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    video.write_bytes(content)
    turned = read(video)[0].pixels
    # What was on top is at the right.
    assert turned[:, 30:].min() > 180
    assert turned[:, :18].max() < 60


def test_a_damaged_video_yields_its_intact_frames(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    with VideoWriter(tmp_path / "v.mp4", Fraction(10)) as writer:
        for _ in range(30):
            writer.write(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    for name, wanted in (("half.mp4", "a video"), ("none.mp4", "no such file"), ("", "a folder")):
        with pytest.raises(UserError, match=wanted):
            read(tmp_path / name)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4: expected a video"):
        read(tmp_path / "text.mp4")


def test_sound_without_video_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="without a video stream"):
        read(tmp_path / "a.mp4")


def fail_after_a_frame(path: Path) -> None:
    with VideoWriter(path, Fraction(10)) as writer:
        writer.write(plain((1, 2, 3)))
        raise ValueError("of the program")


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of the program"):
        fail_after_a_frame(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []
    with VideoWriter(tmp_path / "empty.mp4", Fraction(10)):
        pass
    assert not (tmp_path / "empty.mp4").exists()
    with pytest.raises(UserError, match="can be written"):
        VideoWriter(tmp_path / "none" / "v.mp4", Fraction(10))


def test_video_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_camera("camera")
    assert is_camera("camera:12")
    assert not is_camera("camera:a")
    assert not is_camera("camera.jpg")
    (tmp_path / "camera").mkdir()
    assert not is_video("camera")
    assert is_video("a/b.MOV")
    assert not is_video("a/b.gif")


def test_camera_names_of_each_system() -> None:
    assert camera_input(2, "linux") == ("/dev/video2", "v4l2")
    assert camera_input(2, "darwin") == ("2", "avfoundation")
    assert camera_input(2, "win32") == ("video=2", "dshow")


def test_a_missing_camera_is_reported() -> None:
    with pytest.raises(UserError, match="camera:97: expected a camera"):
        VideoReader("camera:97")


def test_without_the_extra(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"sppnet\[video\]"):
        VideoReader(video)
