"""Plots as PNG files, drawn by matplotlib, which is imported by the first plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sppnet.draw.fonts import font_file
from sppnet.draw.palette import PALETTE
from sppnet.errors import MissingExtraError, UserError, visible

_DASHES = ("-", "--", ":", "-.")
_ZERO_WIDTH = "\u200b"
_MAX_NAMES = 80  # more tick labels would overlap


def plot_precision_recall(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    average_precisions: Mapping[str, float | None] | None = None,
    title: str = "Precision and recall",
) -> bytes:
    """Plot precision over recall, with one line per class.

    Args:
        curves: recall ``[M]`` and precision ``[M]`` by class name, 0..1, recall ascending. A class without
            points or with a NaN in its recall is listed in the legend and has no line.
        average_precisions: values by class name that the legend shows.
        title: the title.

    Returns:
        The bytes of a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: there is no class, or recall and precision differ in length.

    Examples:
        >>> plot_precision_recall({"cat": ([0.5, 1.0], [1.0, 0.8])}, {"cat": 0.9})[1:4]
        b'PNG'
    """
    if not curves:
        raise UserError("curves", "at least one class", "none")
    columns = -(-len(curves) // 24)
    figure, axes = _figure(6.4 + 2.1 * columns, 5.2, title, "recall", "precision")
    for number, (name, (recalls, precisions)) in enumerate(curves.items()):
        recall, precision = _pair(f"curves[{name!r}]", recalls, precisions)
        value = None if average_precisions is None else average_precisions.get(name)
        label = name if value is None else f"{name}  {value:.3f}"
        if np.isnan(recall).any():
            recall, precision = recall[:0], precision[:0]
        if len(recall):
            # The curve starts at recall 0 with the precision of the first detection.
            recall = np.concatenate([[0.0], recall])
            precision = np.concatenate([precision[:1], precision])
        axes.plot(recall, precision, label=_plain(label), **_style(number))
    axes.set(xlim=(0, 1.005), ylim=(0, 1.02))
    heading = None if average_precisions is None else "average precision"
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9, ncols=columns, title=heading
    )
    return _png(figure)


def plot_lines(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str, x_label: str, y_label: str
) -> bytes:
    """Plot one line per series, such as learning curves; lines of up to 30 points have markers.

    Args:
        series: x ``[M]`` and y ``[M]`` by name; a NaN interrupts the line.
        title: the title.
        x_label: quantity and unit of the horizontal axis.
        y_label: quantity and unit of the vertical axis.

    Returns:
        The bytes of a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: there is no series, or x and y differ in length.

    Examples:
        >>> plot_lines({"loss": ([1, 2, 3], [0.9, 0.5, 0.4])}, "Training", "epoch", "loss")[1:4]
        b'PNG'
    """
    if not series:
        raise UserError("series", "at least one line", "none")
    figure, axes = _figure(7.2, 4.6, title, x_label, y_label)
    for number, (name, (xs, ys)) in enumerate(series.items()):
        x, y = _pair(f"series[{name!r}]", xs, ys)
        axes.plot(
            x, y, label=_plain(name), marker="o" if len(x) <= 30 else "", markersize=4, **_style(number)
        )
    axes.margins(x=0.02)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def plot_bars(
    series: Mapping[str, Sequence[tuple[str, float | None, float]]], title: str, x_label: str = ""
) -> bytes:
    """Plot horizontal bars, in groups of one bar per series.

    Args:
        series: tuples (group, value, deviation) by name of the series, with equal groups in equal order.
            A value of None has no bar.
        title: the title.
        x_label: quantity and unit of the values.

    Returns:
        The bytes of a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: there is no series, or the series have different groups.

    Examples:
        >>> plot_bars({"CPU": [("pooling", 1.5, 0.1)], "GPU": [("pooling", 0.2, 0.0)]}, "Times", "ms")[1:4]
        b'PNG'
    """
    groups = [name for name, _, _ in next(iter(series.values()), ())]
    if not groups or any([name for name, _, _ in bars] != groups for bars in series.values()):
        raise UserError("series", "at least one series, all of the same groups", list(series))
    figure, axes = _figure(
        8.6, 1.4 + 0.22 * len(groups) * len(series) + 0.1 * len(groups), title, x_label, ""
    )
    height = 0.8 / len(series)
    for number, (name, bars) in enumerate(series.items()):
        known = [(i, value, deviation) for i, (_, value, deviation) in enumerate(bars) if value is not None]
        positions = [i + number * height for i, _, _ in known]
        deviations = [deviation for _, _, deviation in known]
        style = _style(number)
        axes.barh(
            positions,
            [value for _, value, _ in known],
            height * 0.92,
            xerr=deviations if any(deviations) else None,
            color=style["color"],
            label=_plain(name),
        )
    axes.set_yticks(
        [i + 0.4 - height / 2 for i in range(len(groups))], [_plain(g) for g in groups], fontsize=8
    )
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def plot_confusion(matrix: ArrayLike, names: Sequence[str], title: str = "Confusion matrix") -> bytes:
    """Plot a confusion matrix; rows are true classes, columns predicted classes.

    The colour of a cell shows its fraction of the row. With up to 20 classes, cells show their counts.

    Args:
        matrix: counts ``[K, K]``.
        names: K class names.
        title: the title.

    Returns:
        The bytes of a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: ``matrix`` is empty, is not square, differs in size from ``names`` or has a negative count.

    Examples:
        >>> plot_confusion([[5, 1], [0, 4]], ["cat", "dog"])[1:4]
        b'PNG'
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape != (len(names), len(names)) or not len(names):
        raise UserError("matrix", f"counts [{len(names)}, {len(names)}] of at least one class", counts.shape)
    if counts.min() < 0:
        raise UserError("matrix", "counts of at least 0", counts.min())
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.4, 0.42 * len(names) + 2.4), 14.0)
    figure, axes = _figure(side + 0.9, side, title, "predicted", "true")
    axes.grid(visible=False)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="fraction of the true class", fraction=0.046, pad=0.03)
    if len(names) <= _MAX_NAMES:
        size = min(9.0, 560 / len(names) / 4 + 3)
        ticks = range(len(names))
        shown = [_plain(name) for name in names]
        axes.set_xticks(ticks, shown, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(ticks, shown, fontsize=size)
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if share[row, column] > 0.55 else "#222222"
                axes.text(column, row, f"{count:g}", ha="center", va="center", color=ink, fontsize=8)
    return _png(figure)


def _figure(width: float, height: float, title: str, x_label: str, y_label: str) -> tuple[Any, Any]:
    """Create a figure of a size in inches and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "plots") from error
    # pyplot is avoided because it stores all figures and selects a graphical backend.
    figure: Any = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    axes: Any = figure.add_subplot()
    axes.set_title(_plain(title), loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(_plain(x_label))
    axes.set_ylabel(_plain(y_label))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _style(number: int) -> dict[str, Any]:
    """Return the colour and the dash pattern of a line; the pattern changes when the colours repeat."""
    # Yellow and sand are too light for lines on white.
    dark = [colour for colour in PALETTE if sum(colour) < 520]
    red, green, blue = dark[number % len(dark)]
    dash = _DASHES[number // len(dark) % len(_DASHES)]
    return {"color": (red / 255, green / 255, blue / 255), "linestyle": dash, "linewidth": 1.8}


def _plain(text: str) -> str:
    """Escape a text for matplotlib.

    Characters that no font contains are written as code points, and dollar signs are escaped because they
    start formulas. A leading underscore gets a zero-width space before it, because legends omit names that
    start with an underscore.
    """
    shown = visible(text)
    if font_file(shown) is None:
        shown = shown.encode("ascii", "backslashreplace").decode()
    shown = shown.replace("$", r"\$")
    return _ZERO_WIDTH + shown if shown.startswith("_") else shown


def _pair(where: str, xs: ArrayLike, ys: ArrayLike) -> tuple[Any, Any]:
    """Convert the points of a line to arrays of equal length."""
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise UserError(where, "two lists of equal length", f"shapes {list(x.shape)} and {list(y.shape)}")
    return x, y


def _use_fonts(figure: Any) -> None:
    """Set a font that contains its characters for every text that is not ASCII."""
    from matplotlib import font_manager
    from matplotlib.text import Text

    for axes in figure.axes:  # this creates the tick labels
        axes.get_xticklabels()
        axes.get_yticklabels()
    for text in figure.findobj(Text):
        shown: str = text.get_text().replace(_ZERO_WIDTH, "")
        file, _ = ("", 0) if shown.isascii() else font_file(shown) or ("", 0)
        if file:
            font_manager.fontManager.addfont(file)
            text.set_fontfamily(["DejaVu Sans", font_manager.get_font(file).family_name])


def _png(figure: Any) -> bytes:
    _use_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
