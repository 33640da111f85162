"""Every kind of image source, and images too large to be read whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.data import images, read_image, read_pixels, read_scaled, stable_source
from sppnet.errors import UserError
from sppnet.structures import ImageSize

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png(pixels: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sources() -> dict[str, object]:
    planes = torch.from_numpy(PIXELS).permute(2, 0, 1)
    opaque = np.dstack([PIXELS, np.full((6, 9), 255, np.uint8)])
    return {
        "bytes": png(),
        "bytearray": bytearray(png()),
        "memoryview": memoryview(png()),
        "file": io.BytesIO(png()),
        "PIL": Image.fromarray(PIXELS),
        "array": PIXELS,
        "RGBA": opaque,
        "float64": PIXELS / 255,
        "float32": (PIXELS / 255).astype(np.float32),
        "tensor": planes,
        "float tensor": planes / 255,
        "double tensor": planes.double() / 255,
        "RGBA tensor": torch.from_numpy(opaque).permute(2, 0, 1),
        "a tensor with gradients": (planes / 255).requires_grad_(),
    }


@pytest.mark.parametrize("kind", sources())
def test_every_kind_of_source_gives_the_same_pixels(kind: str) -> None:
    assert np.array_equal(read_pixels(sources()[kind]), PIXELS)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1)])
def test_grey_arrays_and_tensors(shape: tuple[int, ...]) -> None:
    grey = PIXELS[:, :, 0].reshape(shape)
    expected = np.repeat(PIXELS[:, :, :1], 3, axis=2)
    for source in (grey, grey / 255, torch.from_numpy(grey.reshape(1, 6, 9).copy())):
        assert np.array_equal(read_pixels(source), expected)


def test_half_precision_keeps_bytes_to_its_precision() -> None:
    planes = torch.from_numpy(PIXELS).permute(2, 0, 1) / 255
    assert np.abs(read_pixels(planes.half()).astype(int) - PIXELS).max() <= 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "a path, bytes, a binary file, a PIL image, an array or a tensor, got NoneType"),
        (7, "got int"),
        ({"a": 1}, "got dict"),
        (io.StringIO("text"), "Open it with mode 'rb'"),
        (b"", "an empty file"),
        (b"text", "a file of unknown type"),
        ("a\0b", "NUL"),
        (torch.zeros(2, 3, 4, 4), "list"),
        (torch.zeros(6, 5, 3), "permute"),
        (torch.zeros(3, 0, 3), "got float32"),
        (torch.full((3, 2, 2), 255.0), "Divide by 255"),
        (torch.full((3, 2, 2), -1.0), "normalisation"),
        (torch.full((3, 2, 2), float("nan")), "0..1"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "got int64"),
        (np.full((2, 2, 3), 2.0), "Divide by 255"),
        (np.zeros((3, 20, 30), np.uint8), "transpose"),
        (np.zeros((2, 4, 4, 3), np.uint8), "list"),
        (np.array(["a"]), "array"),
        (np.array([[None]]), "array"),
    ],
)
def test_other_sources_say_what_is_expected(source: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_image(source)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_closed_or_failing_file_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with path.open("rb") as stream:
        assert np.array_equal(read_pixels(stream), PIXELS)
    with pytest.raises(UserError, match="closed file"):
        read_pixels(stream)
    assert stable_source(io.BytesIO(b"abc")) == b"abc"


@given(st.sampled_from([8, 10, 12, 14, 16]), st.data())
@settings(deadline=None, max_examples=40)
def test_deep_grey_uses_the_bits_that_it_has(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=20))
    values.append(2**bits - 1)
    deep = np.array([values], np.uint16)
    expected = [value >> (bits - 8) for value in values]
    for source in (deep, Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        assert read_pixels(source)[0, :, 1].tolist() == expected


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_large_images_are_averaged_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, orientation: int
) -> None:
    monkeypatch.setattr(images, "LARGE", 10_000)
    smooth = np.add.outer(np.arange(400) / 4, np.arange(600) / 6)
    whole = np.repeat(smooth[:, :, None], 3, axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.img"
    Image.fromarray(whole).save(path, kind, exif=exif.tobytes())
    upright = whole if orientation == 1 else np.rot90(whole, -1)
    size = ImageSize(*upright.shape[:2])
    wanted = ImageSize(size.height // 8, size.width // 8)
    read = read_scaled(path, lambda given: wanted if given == size else pytest.fail(str(given)))
    assert read.size == size
    height, width = read.values.shape[1:]
    assert (height, width) == (size.height // 4, size.width // 4)
    means = upright.reshape(height, 4, width, 4, 3).mean((1, 3)) / 255
    assert np.abs(read.values.permute(1, 2, 0).numpy() - means).max() < 0.03
    # Arrays and images in memory are averaged down alike.
    again = read_scaled(np.ascontiguousarray(upright), lambda _: wanted)
    assert again.size == size
    assert torch.allclose(again.values, read.values, atol=0.03)


def test_images_that_are_not_large_stay_as_they_are() -> None:
    read = read_scaled(PIXELS, lambda _: ImageSize(1, 1))
    assert torch.equal(read.values, read_image(PIXELS))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (600, 400)).save(path)
    monkeypatch.setenv("SPPNET_MAX_MEGAPIXELS", "0.2")
    for source in (path, path.read_bytes()):
        with pytest.raises(UserError, match=r"at most 200,000 pixels, got 600 x 400 = 240,000"):
            read_pixels(source)
    monkeypatch.setenv("SPPNET_MAX_MEGAPIXELS", "0.24")
    assert read_pixels(path).shape == (400, 600, 3)
    # More than Pillow's own limit may be allowed, and Pillow's limit stays what it is.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_pixels(path).shape == (400, 600, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000
    for text in ("many", "-1", "nan", "inf", "0"):
        monkeypatch.setenv("SPPNET_MAX_MEGAPIXELS", text)
        with pytest.raises(UserError, match="SPPNET_MAX_MEGAPIXELS"):
            read_pixels(path)
