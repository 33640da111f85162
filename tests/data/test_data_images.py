from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.data import IMAGE_ENDINGS, find_images, image_size, pixels_to_image, read_image, read_pixels
from sppnet.errors import UserError
from sppnet.inputs import pixels as pixels_module
from sppnet.inputs.pixels import reduced, rgb_pixels
from sppnet.runtime import images as runtime_images
from sppnet.structures import ImageSize


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_an_image_equals_the_pixels_divided_by_255(tmp_path: Path) -> None:
    pixels = noise(7, 5)
    image = read_image(saved(tmp_path, Image.fromarray(pixels), "a.png"))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    expected = torch.tensor(pixels.astype(np.float64) / 255).permute(2, 0, 1).float()
    assert torch.equal(image, expected)


def test_every_byte_is_divided_by_255_and_correctly_rounded() -> None:
    row = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert pixels_to_image(row)[1, 0].tolist() == [float(np.float32(v / 255)) for v in range(256)]


def test_path_image_and_array_agree(tmp_path: Path) -> None:
    pixels = noise(6, 9)
    path = saved(tmp_path, Image.fromarray(pixels), "a.png")
    for source in (path, str(path), Image.open(path), pixels):
        assert np.array_equal(read_pixels(source), pixels)


def test_arrays_with_reversed_axes_and_grey_are_accepted() -> None:
    bgr = noise(4, 6)
    assert torch.equal(read_image(bgr[:, :, ::-1]), read_image(np.ascontiguousarray(bgr[:, :, ::-1])))
    grey = bgr[:, :, 0]
    assert np.array_equal(read_pixels(grey), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 9), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 3), complex),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused_with_dtype_and_shape(array: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"array \[H, W, 3\] in RGB") as caught:
        read_image(array)
    assert str(list(array.shape)) in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, ending: str) -> None:
    # How the stored image must lie for viewers to show `upright`; by the definition of the tag.
    upright = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((16, 16))).astype(np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    path = saved(tmp_path, image, f"a.{ending}", exif=exif.tobytes())
    pixels = read_pixels(path)
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels[8::16, 8::16, 0].astype(int) - upright[8::16, 8::16]).max() <= 6
    assert image_size(path) == ImageSize(32, 48)
    with Image.open(path) as opened:
        assert np.array_equal(read_pixels(opened), pixels)


def test_invalid_orientation_and_damaged_exif_are_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    odd = saved(tmp_path, Image.fromarray(noise(4, 6)), "a.png", exif=exif.tobytes())
    broken = saved(tmp_path, Image.fromarray(noise(4, 6)), "b.jpg", exif=b"Exif\0\0garbage")
    assert image_size(odd) == image_size(broken) == ImageSize(4, 6)
    assert read_pixels(odd).shape == read_pixels(broken).shape == (4, 6, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "CMYK", "HSV", "LAB", "RGBX"])
def test_opaque_modes_become_the_same_colours(mode: str) -> None:
    colour = (0, 0, 0) if mode == "1" else (90, 90, 90) if mode == "L" else (200, 40, 90)
    image = Image.new("RGB", (5, 4), colour)
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (5, 4), v) for v in (119, 128, 128)])
        colour = (113, 113, 113)  # L* = 46.7: sRGB grey of about 0.442
    else:
        image = image.quantize() if mode == "P" else image.convert(mode)
    pixels = read_pixels(image)
    assert pixels.shape == (4, 5, 3)
    assert np.abs(pixels.astype(int) - colour).max() <= 6


def test_transparent_pixels_are_blended_with_white() -> None:
    red = Image.new("RGBA", (3, 2), (255, 0, 0, 255))
    red.putpixel((1, 0), (0, 0, 0, 0))
    red.putpixel((2, 0), (0, 0, 0, 128))
    pixels = read_pixels(red)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 1].tolist() == [255, 255, 255]
    assert np.abs(pixels[0, 2].astype(int) - 127).max() <= 1
    premultiplied = red.convert("RGBa")
    assert np.abs(read_pixels(premultiplied).astype(int) - pixels).max() <= 2
    grey = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.frombytes("L", (2, 1), bytes([255, 0]))])
    assert read_pixels(grey)[0, :, 0].tolist() == [10, 255]
    assert read_pixels(grey.convert("La"))[0, :, 0].tolist() == [10, 255]


def test_transparent_palette_and_colour_key(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    path = saved(tmp_path, palette, "p.png", transparency=1)
    assert read_pixels(path)[0].tolist() == [[0, 0, 255], [255, 255, 255]]
    keyed = Image.new("RGB", (2, 1), (9, 8, 7))
    keyed.putpixel((0, 0), (1, 2, 3))
    path = saved(tmp_path, keyed, "k.png", transparency=(9, 8, 7))
    assert read_pixels(path)[0].tolist() == [[1, 2, 3], [255, 255, 255]]


def test_deep_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(deep), "deep.png")
    assert read_pixels(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert read_pixels(Image.fromarray(deep.astype(np.int32)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    signed = Image.fromarray(np.array([[-100, 0, 100]], np.int32))
    assert read_pixels(signed)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, np.nan, 1.0], [0, 0, 255]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_float_grey(values: list[float], grey: list[int]) -> None:
    assert read_pixels(Image.fromarray(np.array([values], np.float32)))[0, :, 1].tolist() == grey


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert read_pixels(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_files_name_the_file(tmp_path: Path, ending: str) -> None:
    whole = saved(tmp_path, Image.fromarray(noise(64, 64)), f"a.{ending}").read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**32), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]))
@settings(deadline=None, max_examples=60)
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(24, 24)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, len(data), 8):
        data[position] = rng.integers(0, 256)
    path = tmp_path_factory.mktemp("damaged") / "a.bin"
    path.write_bytes(bytes(data))
    for read in (read_image, image_size):
        with contextlib.suppress(UserError):
            read(path)


def test_other_files_are_not_images(tmp_path: Path) -> None:
    text = tmp_path / "a.jpg"
    text.write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for path, got in [
        (text, "unknown type"),
        (tmp_path / "empty.jpg", "an empty file"),
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path, "a folder"),
    ]:
        for read in (read_image, image_size):
            with pytest.raises(UserError, match=got) as caught:
                read(path)
            assert str(path) in str(caught.value)


def test_the_error_for_a_large_image_has_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.new("L", (60, 40)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match="at most 2,000 pixels"):
            read(path)


def test_image_size_reads_the_header_only(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.fromarray(noise(64, 96)), "a.png").read_bytes()
    path = tmp_path / "cut.png"
    path.write_bytes(whole[:200])
    assert image_size(path) == ImageSize(64, 96)


def test_find_images_in_files_folders_and_globs(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    hidden = tmp_path / ".hidden"
    inner.mkdir()
    hidden.mkdir()
    for path in (
        tmp_path / "b.jpg",
        tmp_path / "a.PNG",
        tmp_path / "notes.txt",
        inner / "c.webp",
        hidden / "d.jpg",
        tmp_path / "._b.jpg",
    ):
        path.touch()
    everything = [tmp_path / "a.PNG", tmp_path / "b.jpg", inner / "c.webp"]
    assert find_images([tmp_path]) == everything
    assert find_images([str(tmp_path / "*.jpg")]) == [tmp_path / "b.jpg"]
    assert find_images([str(tmp_path / "**")]) == everything
    # A file named outright is taken whatever its ending; what comes twice is taken once, where it came first.
    assert find_images([inner / "c.webp", tmp_path]) == [inner / "c.webp", *everything[:2]]
    assert find_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    assert all(ending == ending.lower() and ending.startswith(".") for ending in IMAGE_ENDINGS)


def test_a_file_name_with_glob_characters_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a[1].jpg"
    path.touch()
    assert find_images([path]) == [path]


def test_find_images_reports_sources_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for sources, got in [
        ([tmp_path / "missing"], "no such file"),
        ([tmp_path], "got none"),
        ([str(tmp_path / "*.jpg")], "got none"),
        ([], "got none"),
    ]:
        with pytest.raises(UserError, match=got):
            find_images(sources)


def reference_pixels(image: Image.Image, factor: int) -> np.ndarray:
    """Convert the whole image, then reduce it."""
    return np.asarray(Image.fromarray(rgb_pixels(image)).reduce(factor).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "1", "LAB", "HSV", "I", "I;16", "F", "RGB key"])
def test_strips_give_what_the_whole_image_gives(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "_STRIP", 200)
    colours = Image.fromarray(noise(45, 37, 3))
    if mode in ("I", "I;16", "F"):
        deep = np.random.default_rng(1).integers(0, 4000, (45, 37))
        kinds = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
        image = Image.fromarray((deep - 2000 * (mode == "F")).astype(kinds[mode]))
    elif mode == "RGB key":
        image = colours
        image.info["transparency"] = colours.getpixel((3, 3))
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack([noise(45, 37), noise(45, 37, 1)[:, :, 0]]), "RGBA")
    elif mode == "LAB":
        image = Image.merge("LAB", colours.split())
    else:
        image = colours.convert("RGBA").convert("P") if mode == "PA" else colours.convert(mode)
        if mode == "PA":
            image.info["transparency"] = 3
    for factor in (2, 5):
        got = np.asarray(reduced(image, factor).convert("RGB"))
        assert np.abs(got.astype(int) - reference_pixels(image, factor)).max() <= 1
        assert got.shape == reference_pixels(image, factor).shape


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured on Linux only")
@pytest.mark.parametrize(("mode", "megabytes"), [("RGBA", 330), ("I;16", 250), ("RGB", 250)])
def test_memory_for_a_large_image_is_little_more_than_that_of_its_decoder(
    program, tmp_path: Path, mode: str, megabytes: int
) -> None:
    image = Image.new(mode, (6000, 6000), 7 if mode == "I;16" else (1, 2, 3, 200)[: len(mode)])
    path = saved(tmp_path, image, "a.png", compress_level=1)
    said = program("decode_memory", str(path))
    assert float(said.stdout) < megabytes, said.stderr


@pytest.mark.parametrize(("kind", "low"), [(np.int32, 0), (np.uint16, 0), (np.float32, -500)])
def test_deep_grey_in_strips_is_that_of_the_whole_image(
    kind: type, low: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The range grows with the rows, so that a conversion by the range of each strip would differ.
    image = Image.fromarray((np.arange(45 * 37).reshape(45, 37) + low).astype(kind))
    whole = read_pixels(image)
    monkeypatch.setattr(pixels_module, "_STRIP", 200)
    assert np.array_equal(read_pixels(image), whole)
    assert np.array_equal(runtime_images.read_pixels(image), whole)
