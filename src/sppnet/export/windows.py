"""Dense windows in ONNX: `sppnet.proposals.dense_windows` for sizes that the graph computes."""

from __future__ import annotations

import numpy as np

from sppnet.export.geometry import Size, clip
from sppnet.export.graph import Value


def dense_windows(size: Size, shapes: np.ndarray, step: float, most: int) -> Value:
    """float32 ``[N, 4]``, the windows of every shape, slid over an image.

    Args:
        size: of the image.
        shapes: ``[S, 2]``, heights and widths in units of the image's short side.
        step: of the centres, in units of the window's sides.
        most: windows an image.
    """
    builder = size.height.builder
    sides = builder.constant(shapes, np.float64) * size.short_side.cast(np.float64)
    span = builder.stack([size.height, size.width]).cast(np.float64)

    def counts_of(steps: Value) -> Value:
        return builder.op("Round", span / (sides * steps.unsqueeze(1))).maximum(1.0).cast(np.int64)

    steps = builder.constant(np.full(len(shapes), step), np.float64)
    counts = counts_of(steps)
    wanted = counts.reduce("Prod", 1)
    over_budget = wanted.reduce("Sum") > most
    shares = builder.where(over_budget, _shares(wanted, max(most, len(shapes))), wanted)
    steps = (wanted.cast(np.float64) / shares.cast(np.float64)).sqrt().maximum(1.0) * step

    def longer(_: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        now, steps = states
        over = _over(now, shares)
        now = builder.where(over.unsqueeze(1), counts_of(steps), now)
        steps = builder.where(over, steps * 1.02, steps)
        return _over(now, shares).cast(np.int64).reduce("Max").cast(np.bool_), [now, steps]

    # The condition is tested after a round; a round with no shape over its share changes nothing.
    counts, _ = builder.loop([counts, steps], longer)
    return clip(_lay(size, sides, counts).cast(np.float32), size)


def _over(counts: Value, shares: Value) -> Value:
    return (counts.reduce("Prod", 1) > shares) & (counts.reduce("Max", 1) > 1)


def _shares(wanted: Value, most: int) -> Value:
    """How many windows each of S shapes gets; see `sppnet.proposals.dense`."""
    builder = wanted.builder
    ascending, order = builder.sort(wanted, descending=False)
    roots = ascending.cast(np.float64).sqrt()
    weights = builder.op("CumSum", roots, builder.constant(0, np.int64), reverse=1)

    def give(i: Value, states: list[Value]) -> tuple[None, list[Value]]:
        left, shares = states
        part = (left.cast(np.float64) * roots.take(i) / weights.take(i)).cast(np.int64)
        share = ascending.take(i).minimum(part).maximum(1)
        here = builder.range(wanted.length()).equal(i)
        return None, [left - share, builder.where(here, share, shares)]

    left = builder.constant(most, np.int64)
    _, shares = builder.loop([left, ascending], give, wanted.length())
    return builder.op("ScatterElements", shares, order, shares, axis=0)


def _lay(size: Size, sides: Value, counts: Value) -> Value:
    """float64 ``[N, 4]``: the windows of ``counts`` rows and columns of each shape, shape by shape."""
    builder = sides.builder
    each = counts.reduce("Prod", 1)
    stops = builder.op("CumSum", each, builder.constant(0, np.int64))
    number = builder.range(each.reduce("Sum"))
    shape = (number.unsqueeze(1) >= stops).cast(np.int64).reduce("Sum", 1)
    place = number - (stops - each).take(shape)
    rows, columns = (counts.take(i, 1).take(shape) for i in range(2))
    cy, cx = (
        (at.cast(np.float64) + 0.5) * side.cast(np.float64) / count.cast(np.float64)
        for at, side, count in (
            (place / columns, size.height, rows),
            (place % columns, size.width, columns),
        )
    )
    half_height, half_width = (sides.take(i, 1).take(shape) / 2.0 for i in range(2))
    return builder.stack([cx - half_width, cy - half_height, cx + half_width, cy + half_height], 1)
