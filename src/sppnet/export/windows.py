"""ONNX graphs of dense windows, like `sppnet.proposals.dense_windows`, for dynamic sizes."""

from __future__ import annotations

import numpy as np

from sppnet.export.geometry import Size, clip
from sppnet.export.value import Value


def dense_windows(size: Size, shapes: np.ndarray, step: float, most: int) -> Value:
    """Return dense windows, float32 ``[N, 4]``, of every shape.

    Args:
        size: the size of the image.
        shapes: ``[S, 2]``, heights and widths in units of the short side of the image.
        step: distance of the centres in units of the sides of the window.
        most: largest number of windows per image.
    """
    builder = size.height.builder
    sides = builder.constant(shapes, np.float64) * size.short_side.cast(np.float64)
    span = builder.stack([size.height, size.width]).cast(np.float64)

    def counts_of(steps: Value) -> Value:
        return builder.op("Round", span / (sides * steps.unsqueeze(1))).maximum(1.0).cast(np.int64)

    steps = builder.constant(np.full(len(shapes), step), np.float64)
    counts = counts_of(steps)
    requested = counts.reduce("Prod", 1)
    over_budget = requested.reduce("Sum") > most
    shares = builder.where(over_budget, _shares(requested, max(most, len(shapes))), requested)
    steps = (requested.cast(np.float64) / shares.cast(np.float64)).sqrt().maximum(1.0) * step

    def increase_step(_: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        now, steps = states
        over = _over(now, shares)
        now = builder.where(over.unsqueeze(1), counts_of(steps), now)
        steps = builder.where(over, steps * 1.02, steps)
        return _over(now, shares).cast(np.int64).reduce("Max").cast(np.bool_), [now, steps]

    # The condition is tested after a round; a round changes only shapes that exceed their share.
    counts, _ = builder.loop([counts, steps], increase_step)
    return clip(_windows(size, sides, counts).cast(np.float32), size)


def _over(counts: Value, shares: Value) -> Value:
    return (counts.reduce("Prod", 1) > shares) & (counts.reduce("Max", 1) > 1)


def _shares(requested: Value, most: int) -> Value:
    """Return the number of windows of each of S shapes; see `sppnet.proposals.dense`."""
    builder = requested.builder
    ascending, order = builder.sort(requested, descending=False)
    roots = ascending.cast(np.float64).sqrt()
    weights = builder.op("CumSum", roots, builder.constant(0, np.int64), reverse=1)

    def assign(i: Value, states: list[Value]) -> tuple[None, list[Value]]:
        left, shares = states
        part = (left.cast(np.float64) * roots.take(i) / weights.take(i)).cast(np.int64)
        share = ascending.take(i).minimum(part).maximum(1)
        here = builder.range(requested.length()).equal(i)
        return None, [left - share, builder.where(here, share, shares)]

    left = builder.constant(most, np.int64)
    _, shares = builder.loop([left, ascending], assign, requested.length())
    return builder.op("ScatterElements", shares, order, shares, axis=0)


def _windows(size: Size, sides: Value, counts: Value) -> Value:
    """Return windows, float64 ``[N, 4]``, in ``counts`` rows and columns of each shape."""
    builder = sides.builder
    each = counts.reduce("Prod", 1)
    stops = builder.op("CumSum", each, builder.constant(0, np.int64))
    number = builder.range(each.reduce("Sum"))
    shape = (number.unsqueeze(1) >= stops).cast(np.int64).reduce("Sum", 1)
    position = number - (stops - each).take(shape)
    rows, columns = (counts.take(i, 1).take(shape) for i in range(2))
    cy, cx = (
        (at.cast(np.float64) + 0.5) * side.cast(np.float64) / count.cast(np.float64)
        for at, side, count in (
            (position / columns, size.height, rows),
            (position % columns, size.width, columns),
        )
    )
    half_height, half_width = (sides.take(i, 1).take(shape) / 2.0 for i in range(2))
    return builder.stack([cx - half_width, cy - half_height, cx + half_width, cy + half_height], 1)
