from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from sppnet.draw import class_colour, plot_confusion, plot_lines, plot_precision_recall
from sppnet.errors import MissingExtraError, UserError

RISING = (np.linspace(0.1, 0.9, 9), np.linspace(1, 0.4, 9))


@pytest.fixture(autouse=True)
def _needs_matplotlib(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def opened(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels - colour).max(2) <= 2).any())


def test_each_class_has_a_line() -> None:
    two = opened(plot_precision_recall({"cat": RISING, "dog": (RISING[0], RISING[1] / 2)}, {"cat": 0.5}))
    assert has_colour(two, class_colour(0))
    assert has_colour(two, class_colour(1))
    assert not has_colour(opened(plot_precision_recall({"cat": RISING})), class_colour(1))


def test_classes_without_points_and_names_with_special_characters() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = {"_a": ([], []), "$b": ([np.nan, np.nan], [0.0, 0.0]), "c$_$": RISING}
        pixels = opened(plot_precision_recall(curves, {"_a": None, "c$_$": 0.25}))
    assert has_colour(pixels, class_colour(2))


def test_legends_of_more_classes_are_wider() -> None:
    narrow, wide = (
        opened(plot_precision_recall({f"class {i}": RISING for i in range(n)})).shape[1] for n in (3, 50)
    )
    assert wide > narrow


def test_lines_of_any_length_and_with_gaps() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = opened(
            plot_lines(
                {"one": ([1], [2]), "gap": ([1, 2, 3], [1, np.nan, 2]), "none": ([], [])}, "T", "x", "y"
            )
        )
    assert has_colour(pixels, class_colour(0))


@pytest.mark.parametrize("count", [1, 5, 30, 101])
def test_confusion_matrices_of_any_size(count: int) -> None:
    matrix = np.eye(count, dtype=int) * 7
    matrix[0] = 0  # a class without images
    pixels = opened(plot_confusion(matrix, [f"class {i}" for i in range(count)]))
    assert max(pixels.shape) < 2200
    dark = has_colour(pixels, (8, 48, 107))
    assert dark
    assert min(pixels.shape[:2]) > 400


def test_invalid_arguments_raise_user_errors() -> None:
    for call, message in [
        (lambda: plot_precision_recall({}), "at least one class"),
        (lambda: plot_precision_recall({"a": ([1, 2], [1])}), "two lists of equal length"),
        (lambda: plot_lines({}, "", "", ""), "at least one line"),
        (lambda: plot_lines({"a": ([[1]], [[1]])}, "", "", ""), "two lists of equal length"),
        (lambda: plot_confusion(np.zeros((2, 3)), ["a", "b"]), r"counts \[2, 2\]"),
        (lambda: plot_confusion(np.zeros((0, 0)), []), "at least one class"),
        (lambda: plot_confusion(-np.eye(2), ["a", "b"]), "counts of at least 0"),
    ]:
        with pytest.raises(UserError, match=message):
            call()


def test_plots_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"sppnet\[plot\]"):
        plot_lines({"a": ([1], [1])}, "", "", "")
