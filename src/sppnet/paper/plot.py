"""A plot of a table."""

from __future__ import annotations

from collections.abc import Sequence

from sppnet.draw import plot_bars
from sppnet.paper.tables import Row


def plot_rows(rows: Sequence[Row], title: str) -> bytes:
    """Bars of the figures here with their deviations, the paper's beside them; a PNG file."""
    here = [(row.setting, row.ours, row.deviation) for row in rows]
    paper = [(row.setting, row.paper, 0.0) for row in rows]
    series = {"here": here}
    if any(row.paper is not None for row in rows):
        series["paper"] = paper
    return plot_bars(series, title)
